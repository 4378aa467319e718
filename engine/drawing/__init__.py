"""Pictures: what demo.py draws (pens, things that move, places, clips and still pictures), and how
every plot is made."""
