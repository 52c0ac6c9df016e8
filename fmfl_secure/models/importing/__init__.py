"""Makes a Hugging Face folder of safetensors from other forms of published weights.

What is read is data: GGUF, ONNX and weights-only pickles. No code of a model or of a package that
carries one is imported or run. Called by `fmfl-secure model import`.
"""

from fmfl_secure.models.importing.convert import import_model
from fmfl_secure.models.importing.packages import PACKAGED

__all__ = ["PACKAGED", "import_model"]
