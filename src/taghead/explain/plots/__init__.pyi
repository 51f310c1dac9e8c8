from .clip_figures import compare_clips as compare_clips
from .clip_figures import write_figures as write_figures
from .edges import edges_on_frames as edges_on_frames
from .frames import save_figure as save_figure
from .heat import ClipHeat as ClipHeat
from .heat import compare_heat as compare_heat
from .heat import token_heat as token_heat
