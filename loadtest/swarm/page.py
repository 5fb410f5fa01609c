"""stub"""


def page(told, journal):
    return "<html></html>"
