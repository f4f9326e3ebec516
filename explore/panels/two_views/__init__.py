"""The augmentation lab: two views of a picture, the cosines of a batch, and the weights that a temperature gives."""
