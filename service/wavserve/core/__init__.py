"""What every folder may use: data, errors, named noise, the verbs of the models. No torch, no network."""
