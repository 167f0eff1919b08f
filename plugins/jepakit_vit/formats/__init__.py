"""How others keep vision transformers: names, shapes and settings, there and back."""
