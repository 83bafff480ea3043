# Tables and figures of the whole grid.


rule aggregate:
    input:
        needs("aggregate"),
    output:
        outputs("aggregate"),
    log:
        grid.log("aggregate"),
    conda:
        "../../envs/relearn.yaml"
    params:
        settings=settings("aggregate"),
    shell:
        command("aggregate")


rule tabulate:
    input:
        needs("tabulate"),
    output:
        report(
            outputs("tabulate")[0],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        outputs("tabulate")[1:],
    log:
        grid.log("tabulate"),
    conda:
        "../../envs/relearn.yaml"
    params:
        settings=settings("tabulate"),
    shell:
        command("tabulate")


rule plot:
    input:
        needs("plot"),
    output:
        report(
            outputs("plot")[0],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        outputs("plot")[1:],
    log:
        grid.log("plot"),
    conda:
        "../../envs/relearn.yaml"
    params:
        settings=settings("plot"),
    shell:
        command("plot")
