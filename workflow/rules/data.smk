# Data sets, surrogates and poisoned training sets.


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
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
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
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    shell:
        command("poison")
