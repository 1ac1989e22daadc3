"""An OpenAI-compatible server of recorded backbones, and a clock that does not wait."""
