"""A small vision transformer."""

import torch
import torch.nn.functional as F
from torch import nn

from relearn.errors import UserError
from relearn.registry import Channels, PositiveInt, register
from relearn.training.initialisation import TRANSFORMER, truncated
from relearn.training.models import Grouped, check_min_size, is_large

#: the layer groups, for `relearn check-params`, which builds no network
GROUPS = {"vit_small": ["stem", "stage1", "stage2", "stage3", "stage4", "head"]}
STAGES = 4
DEEPEST = 1000  # blocks
HEAD = 64  # channels of an attention head
EPSILON = 1e-6  # of layer norm
# names of DeiT's checkpoints, and of timm's, for the same modules
PUBLISHED = {"cls_token": "stem.class_token", "pos_embed": "stem.positions", "patch_embed.proj": "stem.patches"}
PUBLISHED |= {"norm": "head.0", "head": "head.2"}
BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "qkv",
    "attn.proj": "out",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}


@register
def vit_small(
    num_classes: int, image_size: tuple[int, int], *, width: Channels = 384, depth: PositiveInt = 12
) -> Grouped:
    """ViT-S: patches of 4x4 pixels, a class token, learned positions; it learns with `adamw` (`recipe`).

    From 112 pixels a side patches have 16x16 pixels, as for ImageNet. `width` is the number of channels, 64 of them to
    an attention head; `depth` the number of blocks, in four layer groups. There is no dropout. Weights, class token and
    positions begin truncated normal. Raises UserError for images (H, W) of less than 8 pixels a side or not of whole
    patches, a width that gives no whole heads, or a depth of less than 4. Dosovitskiy et al., 2021 (arXiv 2010.11929),
    section 3.1; the size is that of Touvron et al., 2021 (arXiv 2012.12877), table 1.
    """
    check_min_size(image_size, 8, "vit_small")
    patch, heads = 16 if is_large(image_size) else 4, max(1, width // HEAD)
    if image_size[0] % patch or image_size[1] % patch:
        found = f"found {image_size[0]}x{image_size[1]}"
        raise UserError(f"vit_small: the sides of images must be multiples of {patch} pixels, {found}")
    if width % heads:
        raise UserError(f"vit_small: width must be a multiple of {HEAD}, or less than {2 * HEAD}, found {width}")
    if not STAGES <= depth <= DEEPEST:
        raise UserError(f"vit_small: depth must be from {STAGES} to {DEEPEST} blocks, found {depth}")
    groups: dict[str, nn.Module] = {"stem": _Tokens(image_size, patch, width)}
    published = dict(PUBLISHED)
    for k in range(STAGES):
        before = depth * k // STAGES
        count = depth * (k + 1) // STAGES - before
        for j in range(count):
            theirs, ours = f"blocks.{before + j}", f"stage{k + 1}.{j}"
            published |= {f"{theirs}.{name}": f"{ours}.{own}" for name, own in BLOCK.items()}
        groups[f"stage{k + 1}"] = nn.Sequential(*(_Block(width, heads) for _ in range(count)))
    groups["head"] = nn.Sequential(nn.LayerNorm(width, EPSILON), _ClassToken(), nn.Linear(width, num_classes))
    return Grouped(groups, TRANSFORMER | {_Tokens: truncated}, published)


class _Tokens(nn.Module):
    """A token for the class, and one for each patch, with their positions added."""

    def __init__(self, size: tuple[int, int], patch: int, width: int):
        super().__init__()
        count = (size[0] // patch) * (size[1] // patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + count, width))
        self.patches = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, 1 + patches, width), patches row by row."""
        tokens = self.patches(x).flatten(2).mT
        return torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1) + self.positions


class _Block(nn.Module):
    """Self-attention and a perceptron of one hidden layer, each after layer norm and added to what it gets."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = (
            nn.LayerNorm(width, EPSILON),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, width) to the same."""
        count, length, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).reshape(count, length, width))
        return x + self.mlp(self.norm2(x))


class _ClassToken(nn.Module):
    """The first token."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, width) to (B, width)."""
        return x[:, 0]
