# Tables and figures of the whole grid.


rule aggregate:
    input:
        needs("aggregate"),
    output:
        outputs("aggregate"),
    params:
        reads=reads("aggregate"),
    log:
        grid.log("aggregate"),
    conda:
        "../../envs/relearn.yaml"
    shell:
        command("aggregate")


rule tabulate:
    input:
        needs("tabulate"),
    output:
        report(outputs("tabulate")[0], caption="../report/table.rst", category="Tables", labels={"table": "{table}"}),
        outputs("tabulate")[1:],
    params:
        reads=reads("tabulate"),
    log:
        grid.log("tabulate"),
    conda:
        "../../envs/relearn.yaml"
    shell:
        command("tabulate")


rule plot:
    input:
        needs("plot"),
    output:
        report(outputs("plot")[0], caption="../report/figure.rst", category="Figures", labels={"figure": "{figure}"}),
        outputs("plot")[1:],
    params:
        reads=reads("plot"),
    log:
        grid.log("plot"),
    conda:
        "../../envs/relearn.yaml"
    shell:
        command("plot")
