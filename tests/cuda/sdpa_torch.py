# SPDX-License-Identifier: Apache-2.0
"""Times torch's scaled_dot_product_attention (cuDNN and FlashAttention) on our shapes."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def median_ms(f, times):
    for _ in range(3):
        f()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
    events[0].record()
    for e in events[1:]:
        f()
        e.record()
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in zip(events, events[1:]))[times // 2]


def bench(backend, n, m, heads, size, times):
    torch.manual_seed(1)
    # As in the model: [tokens, heads * size], seen as [1, heads, tokens, size]
    q, k, v = (torch.randn(t, heads, size, device="cuda", dtype=torch.bfloat16).transpose(0, 1)[None]
               for t in (n, m, m))
    try:
        with sdpa_kernel([backend]):
            ms = median_ms(lambda: F.scaled_dot_product_attention(q, k, v), times)
    except RuntimeError as e:
        print(f"TORCH {backend.name} n={n} m={m} heads={heads} size={size}: {str(e).splitlines()[0]}")
        return
    print(f"TORCH {backend.name} n={n} m={m} heads={heads} size={size} {ms:.4f} ms "
          f"{4e-9 * n * m * heads * size / ms:.1f} TFLOP/s", flush=True)


print(torch.__version__, torch.backends.cudnn.version(), torch.cuda.get_device_name())
for b in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
    bench(b, 4725, 4725, 24, 128, 41)
    bench(b, 27280, 27280, 24, 128, 21)
    for length in (4725, 27280):
        for keys in (15, 512):
            bench(b, length, keys, 24, 128, 41)
bench(SDPBackend.MATH, 3520, 3520, 1, 1024, 21)
