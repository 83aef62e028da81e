"""The images, and which of them train, validate and test.

recorded     the images that belong to a model
sources      getting the images: the cache, given files, or a download
fetch        downloading from one source, stopped when it is too slow
formats      CIFAR-10's file formats -> arrays
image_files  image files -> pixels as a viewer shows them; finding them in folders
metadata     stripping image files of metadata; their orientation
cache        the cached arrays and their hashes
libraries    whether torch and torchvision match
splits       which images train and which validate
openings     the record of openings of the test images
images       arrays -> tensors; the only access to the test images
augment      flip, crop and cutout on whole batches
"""
