"""Networks with trained weights from folders, the Hugging Face Hub, torchvision and timm.

Needs jax, flax and safetensors; huggingface_hub for the Hub, torch for torchvision's files.
"""
