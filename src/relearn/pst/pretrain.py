"""Shallow layers of a user's network learned from its own images without labels, when the trap has shown."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import torch
from torch import nn

from relearn.data import Split
from relearn.errors import UserError
from relearn.params import Recipe, schema
from relearn.pretraining.two_views import TwoViews
from relearn.probing.items import class_numbers, image_and_label
from relearn.probing.layer_groups import Group
from relearn.probing.metrics import logits_of
from relearn.probing.probe_set import ProbeSet
from relearn.pst.processes import Processes
from relearn.pst.views import Normalisation
from relearn.runtime import memory
from relearn.runtime.progress import ProgressBar
from relearn.runtime.seeding import Seeds, derive
from relearn.training.fit import fit
from relearn.training.models import Grouped, Normalised
from relearn.training.state import TrainingState

LABEL = "pst: pretraining"


class Pretraining:
    """Trains a copy of a user's model by `stage`, once, on at most `most` images of `data`, drawn by `seed`.

    `data` has items as `ProbeSet.from_dataset` takes them, of the size of `images` (N, 3, H, W), a few of them; they
    are normalised by `normalisation`. Nothing is trained before `start`; afterwards `learned` are the weights by name.
    Each of several processes trains, since the others would have to wait; the weights of the first count.
    Raises UserError when a copy of the model cannot be trained so.
    """

    def __init__(
        self,
        stage: TwoViews,
        training: TrainingState,
        data,
        images: torch.Tensor,
        *,
        normalisation: Normalisation,
        most: int,
        seed: int,
        processes: Processes,
    ):
        self.stage, self.training, self.data, self.normalisation = stage, training, data, normalisation
        self.seeds, self.processes = Seeds("pst", seed, "pretraining"), processes
        self.size = tuple(images.shape[1:])
        self.count = min(len(data), most)
        self.device = str(next(training.model.parameters()).device)
        if stage.batch > self.count:
            raise UserError(
                f"{LABEL}: its batch is {stage.batch}, but there are {self.count} images; give it a smaller batch"
            )
        needed = self.count * images[0].numel()
        memory.check(needed, f"{LABEL} on {self.count} images", "give smaller pretraining_images", self.device)
        self._rehearse(images[:8])
        self.learned: dict[str, torch.Tensor] | None = None

    def start(self, model: nn.Module, slowed: Sequence[str]) -> None:
        """Put what is learned into the groups `slowed` of the model, which has its weights of step 0."""
        if self.learned is None:
            self.learned = self._learn()
            self.processes.copy_first(self.learned.values())
        copy_owned(model, self.learned, [self.training.groups[name] for name in slowed])

    def _learn(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers of a copy of the model, trained from the weights that the model has now."""
        train = self._read().to(self.device)
        classes = len(train.labels.unique())
        shared = {setting.name: setting.default for setting in schema(Recipe)} | {"optimizer": "muon"}
        recipe = self.stage.recipe(shared, len(train))
        recipe["probe_size"] = max(2 * classes, min(recipe["probe_size"], len(train)))
        with self._apart():
            model = self._copied()
            self.stage.attach(model, self.seeds.generator("projector"))
            probe_set = ProbeSet.draw(train, recipe["probe_size"], self.seeds.generator("probe"))
            fit(
                model,
                self.stage,
                train,
                None,
                recipe,
                self.seeds,
                probe_set=probe_set,
                label=LABEL,
                section="pretraining",
            )
            self.stage.detach(model)
        network = model.network
        return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}

    def _read(self) -> Split:
        """The images, each read once, as they were before they were normalised."""
        rows = torch.arange(len(self.data))
        if self.count < len(rows):
            rows = torch.randperm(len(rows), generator=self.seeds.generator("images"))[: self.count].sort().values
        channels, height, width = self.size
        images, labels = torch.empty(self.count, height, width, channels, dtype=torch.uint8), []
        with ProgressBar(self.count, f"{LABEL}: images read") as progress:
            for place, row in enumerate(rows.tolist()):
                image, label = image_and_label(self.data[row])
                if not torch.is_tensor(image) or tuple(image.shape) != self.size or not image.isfinite().all():
                    found = f"{tuple(image.shape)}" if torch.is_tensor(image) else f"a {type(image).__name__}"
                    raise UserError(
                        f"{LABEL}: item {row} must be a finite tensor {self.size} like others, found {found}"
                    )
                levels = (255 * self.normalisation.undone(image[None].cpu())).round_()
                images[place] = levels[0].permute(1, 2, 0).to(torch.uint8)
                labels.append(label)
                progress.advance_to(place + 1)
        return Split(images, class_numbers(labels), rows)

    def _copied(self) -> "Copied":
        # the hook by which `training` stops statistics comes along, and finds none to stop
        memo = {id(self.training): SimpleNamespace(stop_statistics=False)}
        names = {module: name for name, module in self.training.model.named_modules()}
        try:
            network = copy.deepcopy(self.training.model, memo)
        except Exception as error:  # modules of any kind may fail in any way
            words = " ".join(str(error).split())
            raise UserError(
                f"{LABEL}: this {type(self.training.model).__name__} cannot be copied ({words:.160})"
            ) from None
        outputs = {name: network.get_submodule(names[group.output]) for name, group in self.training.groups.items()}
        return Copied(network, self.normalisation, outputs).to(self.device)

    def _rehearse(self, images: torch.Tensor) -> None:
        """One forward pass of what is to be trained: an error shall not come hours later."""
        with self._apart():
            model = self._copied()
            self.stage.attach(model, self.seeds.generator("projector"))
            x = self.normalisation.undone(images).to(self.device)
            generator = self.seeds.generator("rehearsal", device=self.device)
            labels = torch.arange(len(x), device=self.device) % 2
            self.stage.loss(model.train(), x, labels, generator, nn.CrossEntropyLoss())

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """A block that is no part of the user's loop: without its autocast, and with global draws of its own."""
        gpu = self.device.startswith("cuda")
        with (
            torch.random.fork_rng([*range(torch.cuda.device_count())] if gpu else []),
            torch.autocast(torch.device(self.device).type, enabled=False),
        ):
            torch.manual_seed(derive(*self.seeds.coordinates, "dropout"))
            yield


class Copied(Normalised):
    """A user's network that takes images in [0, 1]; `outputs` are the modules whose outputs layer groups are."""

    def __init__(self, network: nn.Module, normalisation: Normalisation, outputs: Mapping[str, nn.Module]):
        super().__init__(cast(Grouped, network), normalisation.mean, normalisation.std)
        self._outputs = dict(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of a batch (B, 3, H, W) in [0, 1]."""
        dtype = next(self.network.parameters()).dtype
        return logits_of(self.network(((x - self.mean) / self.std).to(dtype))).float()

    def layer_groups(self) -> dict[str, nn.Module]:
        """Where activations are measured; all groups learn alike."""
        return dict(self._outputs)


@torch.no_grad()
def copy_owned(model: nn.Module, learned: Mapping[str, torch.Tensor], groups: Sequence[Group]) -> None:
    """Copy the parameters of `groups` from `learned`, by name, and the buffers of modules that they own.

    A group owns a module whose own parameters are all among those of `groups`; one without any it does not.
    """
    owned = {parameter for group in groups for parameter in group.parameters}
    for name, parameter in model.named_parameters():
        if parameter in owned:
            parameter.copy_(learned[name])
    for prefix, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and owned.issuperset(own):
            for name, buffer in module.named_buffers(recurse=False):
                buffer.copy_(learned[f"{prefix}.{name}" if prefix else name])
