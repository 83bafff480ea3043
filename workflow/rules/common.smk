# What every rule shares. The wildcards of a job spell its argument; grid.Job says what the job reads and depends on.


wildcard_constraints:
    **dict.fromkeys(registry.SECTIONS, "[a-z0-9_]+"),
    rule="[a-z]+",
    seed="[0-9]+",
    section="[a-z]+",
    name="[a-z0-9_]+",


def job(rule, wildcards):
    """The job of a rule with these wildcards, in the grid or not."""
    argument = grid.RULES[rule].argument.format(**wildcards)
    return JOBS.get((rule, argument)) or grid.job(PARAMS, rule, argument)


def needs(rule):
    """Input files of a rule's job: what it reads, and the sources that it runs."""
    return lambda wildcards: [*(found := job(rule, wildcards)).inputs, *found.sources]


def settings(rule):
    """The part of params.yaml that a rule's job depends on; a change of it runs the job again."""
    return lambda wildcards: grid.values(PARAMS, job(rule, wildcards).keys)


def digests(rule):
    """The content of the user's files that a rule's job lists; a change of it runs the job again."""
    return lambda wildcards: grid.digests(PARAMS, job(rule, wildcards))


def outputs(rule):
    """Patterns of what a rule writes."""
    return list(grid.RULES[rule].outputs.values())


def command(rule):
    """The command that both engines run, its output in the log; the last line is shown however quiet Snakemake is."""
    argument = grid.RULES[rule].argument.replace("{", "{wildcards.")
    log = "> {log} 2>&1 || {{ tail -n 1 {log} >&2; exit 1; }}"
    return " ".join(filter(None, ("relearn", rule, argument, log)))


def estimate(rule, resource, default):
    """What a job asks a cluster for: what `relearn plan --write` found, else `default`; twice that when tried again."""

    def asked(wildcards, attempt):
        return attempt * ESTIMATES.get(job(rule, wildcards).command, {}).get(resource, default)

    return asked


THREADS = PARAMS.compute["threads"]
