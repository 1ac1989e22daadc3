"""The yardstick: one pass through a sentence encoder of MiniLM-L6's shape, weights drawn at random.

Its time depends on the shape alone: 6 layers, 384 wide, 12 heads, 1,536 between, 128 tokens.
"""

from __future__ import annotations

from collections.abc import Callable

from agentbalance_plugin.extras import require

TOKENS = 128
_LAYERS, _WIDTH, _HEADS, _BETWEEN = 6, 384, 12, 1536
_WORDS, _POSITIONS = 30_522, 512


def encoder_pass(seed: int) -> Callable[[], object]:
    """A function that encodes one text of 128 tokens on one thread.

    Raises:
        ImportError: torch is missing; names the extra.
    """
    torch = require("torch", extra="train")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    words = torch.nn.Embedding(_WORDS, _WIDTH)
    positions = torch.nn.Embedding(_POSITIONS, _WIDTH)
    norm = torch.nn.LayerNorm(_WIDTH)
    layer = torch.nn.TransformerEncoderLayer(
        _WIDTH, _HEADS, _BETWEEN, activation="gelu", batch_first=True
    )
    layers = torch.nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
    for part in (words, positions, norm, layers):
        part.eval()
    ids = torch.randint(0, _WORDS, (1, TOKENS))
    places = torch.arange(TOKENS)[None]

    def encode() -> object:
        with torch.inference_mode():
            hidden = layers(norm(words(ids) + positions(places)))
            return hidden.mean(dim=1)

    return encode
