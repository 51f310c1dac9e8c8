from .clip_page import write_page as write_page
from .index_page import PageEntry as PageEntry
from .index_page import write_index as write_index
