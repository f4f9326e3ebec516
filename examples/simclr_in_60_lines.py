"""SimCLR with adversarial examples (CLAE) in one file: python examples/simclr_in_60_lines.py [name=value ...]

attack=none eps=0 is SimCLR, attack=gaussian puts noise in the adversary's place; data=cifar10 downloads CIFAR-10.
`explore.train` computes the same loss with fewer passes, and adds precision, run folders, resuming, processes.
"""

import sys

import torch

import explore as ex

# ---- settings; those marked (!) matter most -------------------------------------------------------------------------
data, images = "fashion", 10_000  # 32 x 32 photographs of clothes, shipped
arch, width, stem, proj_dim = "resnet10", 16, "small", 64  # width=64 stem=cifar: the full network, for a GPU
epochs, batch_size = 5, 128  # (!) longer is better: SimCLR's authors train for 100 to 1,000 epochs
lr, weight_decay, temperature = 2e-3, 1e-4, 0.2  # (!) lr goes with the batch, temperature with the images
crop_min, jitter, flip = 0.5, 1.0, 0.0  # (!) the views decide what is learnt; 0.2, 1.0, 0.5 for CIFAR-10
attack, eps, alpha = "fgsm", "8/255", 1.0  # the adversary, its size in pixel units, the weight of its loss
seed, device = 0, "cuda" if torch.cuda.is_available() else "cpu"
for name, value in (word.split("=") for word in sys.argv[1:]):  # ... each can be given as name=value
    globals()[name] = type(globals()[name])(value)

# ---- data, views, network -------------------------------------------------------------------------------------------
torch.manual_seed(seed)  # weights; all other draws come from this generator:
generator = ex.seeded(seed)
dataset = ex.load(data, device=device)
train = dataset.train.take(min(images, len(dataset.train)), generator)
views = ex.Views(dataset.size, (crop_min, 1.0), flip=flip, jitter=tuple(jitter * s for s in (0.8, 0.8, 0.8, 0.2)))
encoder = ex.Encoder(arch, width=width, stem=stem, proj_dim=proj_dim).to(device)  # batch norms for clean and for adv
perturb = None if attack == "none" else ex.attack_named(attack, ex.parse_eps(eps))
optimizer = torch.optim.AdamW(encoder.parameters(), lr=lr, weight_decay=weight_decay)
steps = epochs * (len(train) // batch_size)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)  # warm-up, cosine

# ---- training -------------------------------------------------------------------------------------------------------
losses, chance = [], ex.chance(batch_size)  # ln(2N - 1): the loss of an encoder that tells no two images apart
print(f"{len(train):,} images, {steps} steps of {batch_size}, {attack} {eps}; chance is a loss of {chance:.2f}")
for epoch in range(epochs):
    encoder.train()
    for x, _ in train.batches(batch_size, generator, shuffle=True, drop_last=True):
        v1, v2 = ex.two_views(views, x, generator)
        z1, z2 = encoder(v1), encoder(v2)
        loss = loss_adv = total = ex.nt_xent(z1, z2, temperature).mean()
        if perturb:  # x_adv starts from v2 and is pushed away from v1's embedding (Algorithm 1 of CLAE)
            x_adv = perturb(v2, ex.contrast(encoder, z1.detach(), temperature=temperature), generator=generator)
            loss_adv = ex.nt_xent(z1, encoder(x_adv, branch="adv"), temperature).mean()
            total = loss + alpha * loss_adv
        losses.append((loss.item(), loss_adv.item()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        scheduler.step()
    mean, mean_adv = torch.tensor(losses[-(steps // epochs) :]).mean(0).tolist()
    print(f"epoch {epoch + 1}: loss {mean:.3f}, adversary's {mean_adv:.3f}")

# ---- evaluation: a linear probe and nearest neighbours on the features h, before the projector ----------------------
h, y, h_test, y_test = *ex.embed(encoder.eval(), train), *ex.embed(encoder, dataset.test)
knn, probe = ex.knn_accuracy(h, y, h_test, y_test, k=20), ex.Probe().fit(h, y).score(h_test, y_test)
print(f"kNN {100 * knn.accuracy:.1f} %, linear probe {100 * probe.top1:.1f} %")
