# Lists of source files and of the user's files, datasets, surrogates and poisoned and purified training sets.


rule sources:
    input:
        needs("sources"),
    output:
        outputs("sources"),
    log:
        grid.log("sources"),
    localrule: True
    conda:
        "../../envs/relearn.yaml"
    shell:
        command("sources")


rule inputs:
    input:
        needs("inputs"),
    output:
        outputs("inputs"),
    log:
        grid.log("inputs"),
    localrule: True
    conda:
        "../../envs/relearn.yaml"
    params:
        digests=digests("inputs"),
    shell:
        command("inputs")


rule prepare:
    input:
        needs("prepare"),
    output:
        outputs("prepare"),
    log:
        grid.log("prepare"),
    conda:
        "../../envs/relearn.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=settings("prepare"),
    shell:
        command("prepare")


rule surrogate:
    input:
        needs("surrogate"),
    output:
        outputs("surrogate"),
    log:
        grid.log("surrogate"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=estimate("surrogate", "mem_mb", 4000),
        runtime=estimate("surrogate", "runtime", 240),
    params:
        settings=settings("surrogate"),
    shell:
        command("surrogate")


rule poison:
    input:
        needs("poison"),
    output:
        outputs("poison"),
    log:
        grid.log("poison"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=estimate("poison", "mem_mb", 6000),
        runtime=estimate("poison", "runtime", 480),
    params:
        settings=settings("poison"),
    shell:
        command("poison")


rule purify:
    input:
        needs("purify"),
    output:
        outputs("purify"),
    log:
        grid.log("purify"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=estimate("purify", "mem_mb", 6000),
        runtime=estimate("purify", "runtime", 480),
    params:
        settings=settings("purify"),
    shell:
        command("purify")
