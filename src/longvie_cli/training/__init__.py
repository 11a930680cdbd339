"""Training of the embedded model: worlds to flights, autoencoder, text encoder, transformer, depth."""
