"""What demo.py draws: pens, things that move, places, clips and still pictures."""
