# Lists of source files, data sets, surrogates and poisoned training sets.


rule sources:
    localrule: True
    input:
        needs("sources"),
    output:
        outputs("sources"),
    log:
        grid.log("sources"),
    conda:
        "../../envs/relearn.yaml"
    shell:
        command("sources")


rule prepare:
    input:
        needs("prepare"),
    output:
        outputs("prepare"),
    params:
        reads=reads("prepare"),
    log:
        grid.log("prepare"),
    conda:
        "../../envs/relearn.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    shell:
        command("prepare")


rule surrogate:
    input:
        needs("surrogate"),
    output:
        outputs("surrogate"),
    params:
        reads=reads("surrogate"),
    log:
        grid.log("surrogate"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=estimate("surrogate", "mem_mb", 4000),
        runtime=estimate("surrogate", "runtime", 240),
    shell:
        command("surrogate")


rule poison:
    input:
        needs("poison"),
    output:
        outputs("poison"),
    params:
        reads=reads("poison"),
    log:
        grid.log("poison"),
    conda:
        "../../envs/relearn.yaml"
    threads: THREADS
    resources:
        mem_mb=estimate("poison", "mem_mb", 6000),
        runtime=estimate("poison", "runtime", 480),
    shell:
        command("poison")
