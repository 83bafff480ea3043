# What methods start from, victims, and their records: the last two a job per cell.


rule pretrain:
    input:
        needs("pretrain"),
    output:
        outputs("pretrain"),
    log:
        grid.log("pretrain"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=estimate("pretrain", "mem_mb", 4000),
        runtime=estimate("pretrain", "runtime", 240),
    params:
        settings=settings("pretrain"),
    shell:
        command("pretrain")


rule train:
    input:
        needs("train"),
    output:
        outputs("train"),
    log:
        grid.log("train"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=estimate("train", "mem_mb", 4000),
        runtime=estimate("train", "runtime", 240),
    params:
        settings=settings("train"),
    shell:
        command("train")


rule evaluate:
    input:
        needs("evaluate"),
    output:
        outputs("evaluate"),
    log:
        grid.log("evaluate"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=settings("evaluate"),
    shell:
        command("evaluate")
