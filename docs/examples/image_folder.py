"""Train a torchvision network on a folder of images that may be unlearnable: `python image_folder.py FOLDER`.

FOLDER has a folder of images for each class. The lines with `pst` or `PST` in them are all that Progressive Staged
Training adds to an ordinary training loop.
"""

import argparse

import torch
import torch.nn.functional as F

from relearn.pst import PST
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
plain = transforms.Compose(
    [
        transforms.Resize((options.size, options.size)),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.25] * 3),
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

model = torchvision.models.get_model(options.model, num_classes=len(train.classes)).to(device)
optimizer = torch.optim.SGD(model.parameters(), options.lr, momentum=0.9, weight_decay=5e-4)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, options.epochs * len(loader))

pst = PST(model, optimizer, ImageFolder(options.folder, plain), steps_per_epoch=len(loader), scheduler=scheduler)
for epoch in pst.epochs(options.epochs):
    model.train()
    for images, labels in loader:
        loss = F.cross_entropy(model(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if pst.step():
            break
    print(f"epoch {epoch}: loss {loss.item():.3f}, {pst.stage}")
print(pst.verdict)
torch.save(model.state_dict(), "model.pt")
