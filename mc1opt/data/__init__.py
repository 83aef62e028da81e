"""Data sets, and their training, validation and test images.

sources       finds the images: the cache, a given path, then one download source after the other
named         the data sets that have a name: shapes, classes and hashes
fetch         downloads, and when to give up on a source
formats       reads files of known formats into arrays
idx           reads IDX files, as MNIST's are, into arrays
image_files   decodes image files to pixels; finds them in folders
folders       the files, classes and parts of a folder of image files
decode        decodes many image files in parallel
intake        takes a folder of image files into the cache, and finds it there again
metadata      removes metadata from image files; their orientation
report        what `mc1opt data` says
examine       what is wrong with images, and what to do
duplicates    images that are there twice, or nearly
cache         the cache of arrays, and the checksums that they are verified by
model_images  the images that a stored model or a study was trained on
libraries     checks that torch and torchvision were built for each other
splits        the stratified split into training and validation images, and folds
test_log      records each time the test images are opened
images        arrays to tensors; the one function that opens the test images
augment       flip, crop, cutout and smaller images on whole batches
"""
