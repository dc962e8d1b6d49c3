"""XML files of annotations, with the line of each element; entities are refused (an XML bomb needs them)."""

import xml.etree.ElementTree as ET
from typing import Any
from xml.parsers import expat


class XmlFile:
    """A parsed XML file."""

    root: ET.Element

    def __init__(self, data: bytes) -> None:
        """Parse it.

        Raises:
            ValueError: it is not XML, or defines entities.
        """
        self._lines: dict[ET.Element, int] = {}
        builder = ET.TreeBuilder()
        parser = expat.ParserCreate()
        parser.buffer_text = True

        def start(tag: str, attributes: dict[str, str]) -> None:
            self._lines[builder.start(tag, attributes)] = parser.CurrentLineNumber

        def refuse(*_: Any) -> None:
            raise ValueError("an XML file that defines entities is not read")

        parser.StartElementHandler = start
        parser.EndElementHandler = builder.end
        parser.CharacterDataHandler = builder.data
        parser.EntityDeclHandler = refuse
        try:
            parser.Parse(data, True)
        except (expat.ExpatError, LookupError, UnicodeError) as error:  # the latter two: its encoding
            raise ValueError(f"not an XML file ({error})") from None
        self.root = builder.close()

    def line(self, element: ET.Element) -> int:
        """The line in which an element begins, from 1."""
        return self._lines[element]
