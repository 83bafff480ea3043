"""Whether a state of PST fits the loop that is to go on with it."""

from relearn.errors import UserError


def check(state: dict, own: dict, here: dict[str, tuple], stages: int) -> None:
    """Raises UserError when `state` is not one of this model and loop.

    `own` is the state that the loop has now, `here` are the shapes of the model's tensors by name, and there are so
    many stages.
    """
    shapes = _shapes(state, own)
    if state["groups"] != own["groups"]:
        raise UserError(f"pst: the state is of layer groups {state['groups']}, this model has {own['groups']}")
    if state["steps_per_epoch"] != own["steps_per_epoch"]:
        raise UserError(
            f"pst: the state is of {state['steps_per_epoch']} steps an epoch, steps_per_epoch is "
            f"{own['steps_per_epoch']}; resume with the same batches"
        )
    if state["staging"]["stage"] > stages:
        raise UserError(
            f"pst: the state is in stage {state['staging']['stage']}, these settings have {stages}; "
            "resume with the same settings"
        )
    for there in shapes:
        if differing := [name for name in here | there if here.get(name) != there.get(name)]:
            name = differing[0]
            raise UserError(
                f"pst: the state is of another model: '{name}' is {there.get(name, 'missing')} there, "
                f"{here.get(name, 'missing')} here"
            )


def _shapes(state: dict, own: dict) -> list[dict[str, tuple]]:
    """The shapes of tensors by name of each snapshot in `state`. Raises UserError when it is no state."""
    try:
        known = state.keys() >= own.keys() and state["staging"].keys() == own["staging"].keys()
        if known and (not state["restore_schedule"] or state["step"] in state["schedules"]):
            return [
                {name: tuple(tensor.shape) for name, tensor in snapshot["model"].items()}
                for snapshot in state["staging"]["snapshots"]
            ]
    except (AttributeError, KeyError, TypeError):
        pass
    raise UserError("pst: this is no state of PST, or one of another version; load what pst.state_dict() gave")
