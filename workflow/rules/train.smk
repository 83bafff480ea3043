# Victims and their records, a job per cell.


rule train:
    input:
        needs("train"),
    output:
        outputs("train"),
    params:
        reads=reads("train"),
    log:
        grid.log("train"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    shell:
        command("train")


rule evaluate:
    input:
        needs("evaluate"),
    output:
        outputs("evaluate"),
    params:
        reads=reads("evaluate"),
    log:
        grid.log("evaluate"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        command("evaluate")
