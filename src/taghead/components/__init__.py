"""Components: the exchangeable parts of a head, as a name, a class path with options, or an object.

It is one rule for the command line, YAML, checkpoints and model folders, and imports `class_paths`.
"""

from taghead.components.classes import find_class as find_class
from taghead.components.classes import listed_classes as listed_classes
from taghead.components.classes import names_of as names_of
from taghead.components.classes import path_of as path_of
from taghead.components.component import AnyComponent as AnyComponent
from taghead.components.component import Component as Component
from taghead.components.component import Copy as Copy
from taghead.components.component import Function as Function
from taghead.components.component import described as described
from taghead.components.component import to_plain as to_plain
from taghead.components.given import ComponentLike as ComponentLike
from taghead.components.given import as_component as as_component
