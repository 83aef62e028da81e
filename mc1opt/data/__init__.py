"""Which images there are; who trains, validates, tests.

recorded     the images that belong to a model
sources      where the images come from, one source after the other
fetch        fetching over the network, and giving a source up
formats      CIFAR-10's file formats to arrays
image_files  image files to pixels, as a viewer shows them; finding them in folders
metadata     image files without metadata, and their orientation
cache        the cached arrays, and which ones they must be
libraries    whether torch and torchvision are builds that match
splits       which images train and which validate
openings     the record of openings of the test images
images       arrays to tensors, and the one door to the test images
augment      flip, crop, cutout and smaller images, on whole batches
"""
