"""Videos: decoding, flow, what is seen of them, and pictures drawn on them."""
