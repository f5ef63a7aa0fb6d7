"""The loopback Hub itself: what other tests rely on it for."""

import subprocess
import sys
from pathlib import Path

import hub_server


def test_a_small_vit_loads_under_a_famous_name(hub, client, checkpoint):
    hub.add_repo("google/vit-base-patch16-224", checkpoint)
    code = """
from transformers import AutoImageProcessor, AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("google/vit-base-patch16-224")
processor = AutoImageProcessor.from_pretrained("google/vit-base-patch16-224")
print(model.config.hidden_size, processor.size["height"])
"""
    assert client(code).stdout.split() == ["32", "32"]


def test_the_command_line_serves_a_folder(checkpoint, tmp_path):
    command = [sys.executable, hub_server.__file__, "--serve", f"google/vit-base-patch16-224={checkpoint}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(server.stdout.readline, "")
        exports = dict(line.removeprefix("export ").strip().split("=", 1) for line in _until_comment(lines))
        assert exports["HF_ENDPOINT"].startswith("http://127.0.0.1:")
        code = "from huggingface_hub import snapshot_download; print(snapshot_download('google/vit-base-patch16-224'))"
        environment = exports | {"HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        folder = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()
        assert {path.name for path in Path(folder).iterdir()} == {path.name for path in checkpoint.iterdir()}
    finally:
        server.terminate()
        server.wait()


def _until_comment(lines):
    for line in lines:
        if line.startswith("#"):
            return
        yield line


def test_reading_writing_and_finding(hub, client, checkpoint):
    """One process that walks through the client's calls, as the libraries above it make them."""
    hub.add_repo("other/hidden", checkpoint, private=True)
    code = """
import sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

def raised(kind, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except kind:
        return True
    return False

api = HfApi()
assert api.whoami()["name"] == "tester"
assert api.create_repo("data", repo_type="dataset").repo_id == "tester/data"
assert raised(HfHubHTTPError, api.create_repo, "data", repo_type="dataset")
api.upload_folder(repo_id="tester/data", repo_type="dataset", folder_path=sys.argv[1], path_in_repo="a/b")
api.upload_file(repo_id="tester/data", repo_type="dataset", path_or_fileobj=b"text", path_in_repo="notes.txt")
files = api.list_repo_files("tester/data", repo_type="dataset")
assert "a/b/model.safetensors" in files and "notes.txt" in files, files
assert {e.path for e in api.list_repo_tree("tester/data", repo_type="dataset")} == {"a", "notes.txt"}
info = api.get_paths_info("tester/data", ["a", "a/b/model.safetensors", "no"], repo_type="dataset")
assert len(info) == 2 and info[0].lfs.size == info[0].size
local = hf_hub_download("tester/data", "a/b/model.safetensors", repo_type="dataset")
assert open(local, "rb").read() == open(sys.argv[1] + "/model.safetensors", "rb").read()
api.create_branch("tester/data", branch="old/state", repo_type="dataset")
api.delete_file("notes.txt", "tester/data", repo_type="dataset")
assert not api.file_exists("tester/data", "notes.txt", repo_type="dataset")
assert api.file_exists("tester/data", "notes.txt", repo_type="dataset", revision="old/state")
assert {b.name for b in api.list_repo_refs("tester/data", repo_type="dataset").branches} == {"main", "old/state"}
assert raised(EntryNotFoundError, hf_hub_download, "tester/data", "no.txt", repo_type="dataset")
assert raised(RevisionNotFoundError, api.model_info, "other/hidden", revision="no")
assert raised(RepositoryNotFoundError, api.model_info, "other/no")
assert api.model_info("other/hidden").private
assert raised(RepositoryNotFoundError, HfApi(token=False).model_info, "other/hidden")
assert raised(HfHubHTTPError, HfApi(token="hf_wrong").whoami)
assert raised(HfHubHTTPError, HfApi(token=False).create_repo, "tester/no")
"""
    client(code, checkpoint)
    assert hub.commits("tester/data", repo_type="dataset")[-1].startswith("Delete notes.txt")


def test_data_set_loads_from_the_hub(hub, client, tmp_path):
    from PIL import Image

    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(folder / f"{i}.png")
    rows = "".join(f"{i}.png,{i % 2}\n" for i in range(4))
    (folder / "metadata.csv").write_text(f"file_name,label\n{rows}")
    hub.add_repo("tester/images", tmp_path / "images", repo_type="dataset")
    code = """
from datasets import load_dataset
data = load_dataset("tester/images", split="train")
print(data["label"][:], [image.getpixel((0, 0))[0] for image in data["image"]])
"""
    assert client(code).stdout.strip().endswith("[0, 1, 0, 1] [0, 60, 120, 180]")
