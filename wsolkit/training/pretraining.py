"""Publishing a pretraining: its weights as a file that recipes can name, and beside it how they were made."""

import hashlib
import json
from pathlib import Path

from safetensors.torch import save

from wsolkit.system.atomic_files import writable_folder, write_file
from wsolkit.training.run_store import Run


def publish(run: Run, folder: Path) -> Path:
    """Write the weights of a finished run, all but its classifier's, as `wsolkit.models.load_pretrained` reads them.

    Args:
        run: the pretraining.
        folder: gets ``<backbone>-<dataset>.safetensors``, and a ``.json`` with the SHA-256, the recipe, and the machine
            and versions that made them.

    Returns:
        The file of the weights.

    Raises:
        WsolkitError: if the folder cannot be written.
    """
    weights = {name: each for name, each in run.model().state_dict().items() if not name.startswith("classifier.")}
    content = save(weights)
    path = writable_folder(folder) / f"{run.recipe.backbone}-{run.recipe.dataset}.safetensors"
    last = run.history().iloc[-1]
    record = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "recipe": json.loads(run.recipe.to_json()),
        "made": run.info(),
        "rates on train-fullsup": {name: last[name] for name in last.index if name.startswith("fullsup_")},
    }
    write_file(path, content)
    write_file(path.with_suffix(".json"), json.dumps(record, indent=2))
    return path
