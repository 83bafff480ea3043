"""What `relearn check` reads, in which order, and what it sees in images without training."""

import pytest
import torch
from PIL import Image

from helpers.images import drawn
from relearn.data import Split, save_split, split
from relearn.errors import UserError
from relearn.pst.check.defects import defects
from relearn.pst.check.inputs import aligned, effective, open_source, stratified, weights_like
from relearn.pst.check.untrained import untrained_probe


def write(folder, images: torch.Tensor, labels: torch.Tensor, names=("cat", "dog")):
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(place / f"{row:04}.png")
    return folder


def smooth(count: int, seed: int = 0) -> Split:
    """Images of two classes that differ in brightness alone, each with fine noise of its own."""
    labels = torch.arange(count) % 2
    base = 100 + 20 * labels[:, None, None, None] + torch.randint(-40, 41, (count, 1, 1, 3), generator=drawn(seed))
    noise = torch.randint(-8, 9, (count, 32, 32, 3), generator=drawn(seed + 1))
    return split((base + noise).to(torch.uint8), labels)


def board(labels: torch.Tensor, height: int) -> torch.Tensor:
    """Rows of two signs for class 0, columns for class 1: none of it is left at half the resolution."""
    signs = height * (1 - 2 * (torch.arange(32) % 2))
    rows = signs[:, None, None].expand(32, 32, 3)
    return torch.stack([rows, rows.transpose(0, 1)])[labels]


@pytest.mark.parametrize("part", ["", "train"])
def test_a_folder_is_read_in_both_layouts(tmp_path, part):
    made = smooth(8)
    write(tmp_path / part, made.images, made.labels)
    source = open_source(str(tmp_path))
    order = made.labels.argsort(stable=True)
    assert source.classes == ["cat", "dog"] and source.size == 32
    assert torch.equal(source.split(torch.arange(8)).images, made.images[order])
    assert torch.equal(source.labels, made.labels[order])


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_may_be_called_as_a_part(tmp_path, part):
    """As the trains of CIFAR-100; a folder of parts stays one, and pictures without classes are no class."""
    made = smooth(9)
    write(tmp_path / "a", made.images, torch.arange(9) % 3, ("bus", "car", part))
    assert open_source(str(tmp_path / "a"), part).classes == ["bus", "car", part]
    write(tmp_path / "b" / "train", made.images, made.labels)
    write(tmp_path / "b" / "test", made.images, made.labels)
    assert open_source(str(tmp_path / "b"), part).classes == ["cat", "dog"]
    write(tmp_path / "c", made.images, made.labels, ("train", "test"))
    with pytest.raises(UserError, match=f"{part}' holds no class folders"):
        open_source(str(tmp_path / "c"), part)


def test_a_split_file_is_read_and_large_images_are_made_smaller(tmp_path):
    images = torch.full((4, 100, 120, 3), 7, dtype=torch.uint8)
    save_split(
        tmp_path / "a.safetensors", split(images, torch.tensor([0, 1, 0, 1])), {"classes": ["a", "b"], "settings": {}}
    )
    source = open_source(str(tmp_path / "a.safetensors"))
    read = source.read(torch.tensor([3, 0]))
    assert (source.found, source.size) == (100, 64) and read.shape == (2, 64, 64, 3) and (read == 7).all()


@pytest.mark.parametrize("given", ["nowhere", "a.txt"])
def test_other_inputs_are_one_line(tmp_path, given):
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(UserError, match=given):
        open_source(str(tmp_path / given))


def test_classes_of_clean_images_go_by_name(tmp_path):
    made = smooth(4)
    source = open_source(str(write(tmp_path, made.images, made.labels)))
    assert aligned(source, ["ant", "dog", "cat"], "--clean").tolist() == [2, 2, 1, 1]
    with pytest.raises(UserError, match="--clean has a class 'dog'"):
        aligned(source, ["ant", "cat"], "--clean")


def test_every_beginning_of_the_order_has_the_shares_of_the_whole():
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([600, 300, 100]))
    order = stratified(labels, drawn())
    assert torch.equal(order.sort().values, torch.arange(1000))
    for count in (100, 250, 500):
        found = torch.bincount(labels[order[:count]], minlength=3)
        assert (found - count * torch.tensor([0.6, 0.3, 0.1])).abs().max() <= 2


def test_defects_by_hand():
    made = smooth(6)
    images = made.images.clone()
    images[2] = images[0]  # same class
    images[3] = images[0]  # another class
    images[5] = 9  # shows nothing
    found = defects(split(images, made.labels), ["a", "b"], torch.tensor([3, 30]))
    assert (found.within, found.across, found.constant, found.small) == (1, 1, 1, {"a": 3})


def test_untrained_probe_sees_noise_that_goes_by_the_class_and_not_what_does_not():
    made = smooth(600)
    plain = untrained_probe(made, 0)
    assert not plain.by_class and plain.coarse > 0.55 and abs(plain.shuffled - 0.5) < 0.1 and plain.measured == 300
    poisoned = made.with_images((made.images.int() + board(made.labels, 6)).to(torch.uint8))
    noisy = untrained_probe(poisoned, 0)
    assert noisy.by_class and noisy.fine > 0.95
    assert untrained_probe(poisoned, 0) == noisy


def test_untrained_probe_has_chance_where_labels_mean_nothing():
    made = smooth(600)
    random = Split(made.images, made.labels[torch.randperm(600, generator=drawn())], made.index)
    found = untrained_probe(random, 0)
    assert abs(found.fine - 0.5) < 0.1 and abs(found.coarse - 0.5) < 0.1 and not found.by_class


def test_clean_images_are_weighted_to_the_shares_of_the_images():
    """Three of class 0 and one of class 1, against equal shares: 2/3 each, and 2; (2 + 2)^2 / (3 * 4/9 + 4) is 3."""
    weights = weights_like(torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1, 1, 0]))
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2, 2 / 3]) and effective(weights) == 3
    same = weights_like(torch.arange(2000) % 10, torch.arange(500) % 10)
    assert same.tolist() == [1] * 2000 and effective(same) == 2000
    # a class that is not among the others, in either direction
    assert weights_like(torch.tensor([0, 1]), torch.tensor([1, 1, 1])).tolist() == [0.5, 1.5]
    assert weights_like(torch.tensor([1, 1]), torch.tensor([0, 0, 1])).tolist() == [1, 1]
