"""The laboratory: methods, networks and priors that the default is compared with.

Nothing outside this package imports it; names of registries lead here (`sciresdiff.plugins`), and it is loaded only
where one of them is used.

backbones     networks besides ``resnet``
latent        diffusion of a code of the image (latent diffusion, DiffIR)
published     networks that others trained, as priors
distillation  students that need fewer steps than their teacher
cascade       two models in a row
borrow        one method run by a network that was trained with another
"""
