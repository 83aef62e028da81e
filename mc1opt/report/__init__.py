"""The report: the story of a search on one HTML page, to be read without a network and sent to somebody.

facts     what is known of a study, gathered from where it is stored
trust     what speaks for and against its results
pictures  images of the data, and mistakes on the test images
page      the page, from facts to HTML
"""
