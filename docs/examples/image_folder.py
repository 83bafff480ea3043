"""Train a torchvision network on a folder of images that may be unlearnable: `python image_folder.py FOLDER`.

FOLDER has a folder of images for each class. The lines with `pst` or `PST` in them, and the two of its settings, are
all that Progressive Staged Training adds to an ordinary training loop. Training is plain until the trap shows. Images
that the network is to recognise afterwards pass through `pst.view` too, in evaluation mode.
"""

import argparse

import torch
import torch.nn.functional as F

from relearn.pst import PST, Contrastive
from relearn.runtime import torchvision_compat

torchvision = torchvision_compat.torchvision()  # `import torchvision`, also beside a CPU build of torch
transforms, ImageFolder = torchvision.transforms, torchvision.datasets.ImageFolder

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder")
parser.add_argument("--model", default="resnet18", help="a classification network of torchvision.models")
parser.add_argument("--size", type=int, default=64, help="height and width of the images that the network gets")
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--lr", type=float, default=0.1)
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
mean, std = [0.5] * 3, [0.25] * 3
plain = transforms.Compose(
    [
        transforms.Resize((options.size, options.size)),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
)
augmented = transforms.Compose(
    [
        transforms.RandomHorizontalFlip(),
        transforms.RandomCrop(options.size, options.size // 8, pad_if_needed=True),
        plain,
    ]
)
train = ImageFolder(options.folder, augmented)
loader = torch.utils.data.DataLoader(train, options.batch, shuffle=True, drop_last=len(train) > options.batch)
steps = len(loader)

model = torchvision.models.get_model(options.model, num_classes=len(train.classes)).to(device)
optimizer = torch.optim.SGD(model.parameters(), options.lr, momentum=0.9, weight_decay=5e-4)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, options.epochs * steps)

settings = {"mean": mean, "std": std, "pretraining": Contrastive(batch=options.batch), "plain_first": True}
settings |= {"augmented_first": True, "full_rate_groups": [3], "gray": 1.0, "convolve": 0.5, "degrade": 0.5}
pst = PST(model, optimizer, ImageFolder(options.folder, plain), steps_per_epoch=steps, scheduler=scheduler, **settings)
for epoch in pst.epochs(options.epochs):
    model.train()
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        loss = F.cross_entropy(model(pst.view(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if pst.step():
            break
    print(f"epoch {epoch}: loss {loss.item():.3f}, {pst.stage}")
print(pst.verdict)
torch.save(model.state_dict(), "model.pt")
