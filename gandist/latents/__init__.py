"""The space of an autoencoder, in which networks can learn instead of among pixels."""
