"""What `import explore` and a first use cost beyond torch, in fresh processes."""

import statistics
import subprocess
import sys
import time


def run(quick: bool, device: str) -> dict[str, object]:
    """Seconds of whole processes: torch alone, with explore, with everything that training imports."""
    programs = {
        "torch": "import torch",
        "torch + explore": "import torch, explore",
        "torch + torchvision": "import torch, torchvision",
        "all of training": "import explore.training",
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for i in range(3 if quick else 8):
        for name, code in programs.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            if i:  # the first round fills the disk cache
                seconds[name].append(time.perf_counter() - began)
    print(f"{'':<24}{'median s':>10}{'min':>8}{'max':>8}")
    for name, times in seconds.items():
        print(f"{name:<24}{statistics.median(times):>10.2f}{min(times):>8.2f}{max(times):>8.2f}")

    def beyond(name: str, base: str) -> float:
        return statistics.median(a - b for a, b in zip(seconds[name], seconds[base], strict=True))

    figures = {"beyond_torch_s": beyond("torch + explore", "torch")}
    return {
        **figures,
        "training_beyond_torchvision_s": beyond("all of training", "torch + torchvision"),
        "quick": quick,
    }
