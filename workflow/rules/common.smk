# What every rule shares. A rule's wildcards are a node's coordinates; the node says what the job reads and depends on.


wildcard_constraints:
    kind="[a-z]+",
    dataset="[a-z0-9_]+",
    surrogate="[a-z0-9_]+",
    poison="[a-z0-9_]+",
    arch="[a-z0-9_]+",
    method="[a-z0-9_]+",
    seed="[0-9]+",
    table="[a-z0-9_]+",
    figure="[a-z0-9_]+",


JOBS = {(node.step, node.argument): node for node in NODES}  # Snakemake asks for a job's node again and again


def job(step, wildcards):
    """The node of a job, one of the grid or not."""
    known = JOBS.get((step, grid.STEPS[step].argument.format(**wildcards)))
    return known or grid.node(PARAMS, step, **wildcards)


def needs(step):
    """Input files of a step's job: what it reads, and the sources it runs."""
    return lambda wildcards: [*(node := job(step, wildcards)).inputs, *node.sources]


def reads(step):
    """The part of params.yaml a step's job depends on; a change of it runs the job again."""
    return lambda wildcards: grid.values(PARAMS, job(step, wildcards).reads)


def outputs(step):
    """Patterns of what a step writes."""
    return list(grid.STEPS[step].outputs.values())


def command(step):
    """The command both engines run, what it says in the log; its last words are shown however quiet Snakemake is."""
    words = ("relearn", step, grid.STEPS[step].argument.replace("{", "{wildcards."), "> {log} 2>&1 || {{ tail -n 1 {log} >&2; exit 1; }}")
    return " ".join(filter(None, words))


def estimate(step, resource, default):
    """What a job asks a cluster for: what `relearn plan --write` found, else `default`; twice that in a second attempt."""

    def asked(wildcards, attempt):
        return attempt * ESTIMATES.get(job(step, wildcards).command, {}).get(resource, default)

    return asked


THREADS = PARAMS.compute["threads"]
