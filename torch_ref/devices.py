"""Whether a device that the user asked for is on this machine; the command and pytest both ask."""


def missing_device(device: str) -> str:
    """Why `cuda` or `cuda:N` cannot be used here, as half a sentence; "" where the device can be.

    Imports torch, unless the device is the CPU.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return ""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) < count:
        return ""
    found = {0: "no CUDA device", 1: "one CUDA device, cuda:0,"}.get(count, f"{count} CUDA devices")
    return f"{device} was asked for, but torch finds {found} here"
