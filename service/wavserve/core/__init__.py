"""Code that every folder may use: data types, errors, named noise, the models' verbs. No torch and no network."""
