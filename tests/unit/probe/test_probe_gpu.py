# ruff: noqa: N802, N815 (the names are those of pynvml)
"""The GPU probe against made-up drivers and a made-up torch: what is seen, what is missing, what is refused."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from autotune.errors import NoAcceleratorError
from autotune.flow.ask import place_of
from autotune.flow.budget import budget_for
from autotune.flow.question import Question
from autotune.probe import gpu, nvml
from autotune.probe.catalog import card
from autotune.records.host import Host
from autotune.simulate.workspace import bare_context_bytes
from autotune.units import GIB, MIB

WORKS = "what works: device='cpu', or gpu='NVIDIA GeForce RTX 3060 12GB' to plan for a card that is not here"
DRIVER_BYTES = 300 * MIB
HOST = Host(ram_total_bytes=32 * GIB, ram_available_bytes=16 * GIB, cores=8, os="Linux")


class NvmlError(Exception):
    pass


class Card:
    """A card or MIG instance as the driver would show it."""

    def __init__(self, name, gib, *, uuid, bus=1, capability=(8, 6), cores=3584, free_bytes=(10 * GIB,), parts=None):
        self.name, self.total, self.uuid, self.capability, self.cores = name, int(gib * GIB), uuid, capability, cores
        self.pci = SimpleNamespace(domain=0, bus=bus, device=0)
        self.free_bytes = list(free_bytes)
        self.parts = parts


class Nvml:
    """The part of pynvml that the probe uses, over made-up cards; an exception in place of a card is raised."""

    NVMLError = NvmlError
    nvmlMemory_v2 = 2

    def __init__(self, *cards, init=None, silent=()):
        self.cards, self.init, self.silent, self.open = cards, init, silent, 0

    def nvmlInit(self):
        if self.init:
            raise self.init
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetCount(self):
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):
        if isinstance(self.cards[index], Exception):
            raise self.cards[index]
        return self.cards[index]

    def nvmlDeviceGetMemoryInfo(self, card, version=None):
        if version and "memory_v2" in self.silent:
            raise NvmlError("Function Not Found")
        free = card.free_bytes.pop(0) if len(card.free_bytes) > 1 else card.free_bytes[0]
        return SimpleNamespace(total=card.total, free=free, reserved=DRIVER_BYTES)

    def nvmlDeviceGetName(self, card):
        return card.name

    def nvmlDeviceGetUUID(self, card):
        return card.uuid

    def nvmlDeviceGetCudaComputeCapability(self, card):
        return card.capability

    def nvmlDeviceGetMigMode(self, card):
        if card.parts is None:
            raise NvmlError("Not Supported")
        return (1, 1)

    def nvmlDeviceGetMaxMigDeviceCount(self, card):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card, index):
        if index >= len(card.parts):
            raise NvmlError("Not Found")
        return card.parts[index]

    def nvmlDeviceGetPciInfo(self, card):
        return card.pci

    def nvmlSystemGetDriverVersion(self):
        return "580.65"

    def nvmlDeviceGetNumGpuCores(self, card):
        return self._unless_silent("cores", card.cores)

    def nvmlDeviceGetEnforcedPowerLimit(self, card):
        return self._unless_silent("power", 165_000)

    def nvmlDeviceGetMaxPcieLinkGeneration(self, card):
        return self._unless_silent("link", 3)

    def nvmlDeviceGetCurrPcieLinkWidth(self, card):
        return self._unless_silent("link", 8)

    def _unless_silent(self, what, answer):
        if what in self.silent:
            raise NvmlError("Not Supported")
        return answer


class Torch:
    """The part of torch that the probe uses; `cards` are those that this process may use, in torch's order."""

    def __init__(
        self,
        *cards,
        cuda="13.0",
        hip=None,
        mps=False,
        xpu=False,
        initialized=True,
        pool_bytes=0,
        held_bytes=3 * GIB,
        bare=True,
    ):
        self.__version__ = "2.13.0"
        self.version = SimpleNamespace(cuda=cuda, hip=hip)
        self.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))
        self.xpu = SimpleNamespace(is_available=lambda: xpu)

        def properties(index):
            card = cards[index]
            return SimpleNamespace(
                name=card.name,
                uuid=card.uuid.removeprefix("GPU-") if bare else "ffff",
                total_memory=card.total - DRIVER_BYTES + MIB,
                major=card.capability[0],
                minor=card.capability[1],
                multi_processor_count=28,
                pci_domain_id=card.pci.domain,
                pci_bus_id=card.pci.bus,
                pci_device_id=card.pci.device,
            )

        self.cuda = SimpleNamespace(
            is_available=lambda: bool(cards),
            is_initialized=lambda: initialized,
            device_count=lambda: len(cards),
            current_device=lambda: 0,
            get_device_name=lambda index: cards[index].name,
            get_device_properties=properties,
            memory_reserved=lambda index: held_bytes + pool_bytes,
            memory_allocated=lambda index: held_bytes,
            mem_get_info=lambda index: (9 * GIB, cards[index].total),
        )


@pytest.fixture
def here(monkeypatch):
    """Puts a driver, and if wished a torch, in the place of the real ones."""
    monkeypatch.setattr(nvml, "SETTLE_PAUSE_S", 0.0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(driver, torch=None):
        monkeypatch.setattr(gpu, "_nvml", lambda: driver)
        monkeypatch.setitem(sys.modules, "torch", torch or Torch(initialized=False))

    return put


def rtx3060(**changes):
    return Card("NVIDIA GeForce RTX 3060", 12, **{"uuid": "GPU-aaaa", **changes})


def rtx4090(**changes):
    shown = {"uuid": "GPU-bbbb", "bus": 2, "capability": (8, 9), "cores": 16384, **changes}
    return Card("NVIDIA GeForce RTX 4090", 23.99, **shown)


def refusal(torch_device):
    with pytest.raises(NoAcceleratorError) as caught:
        gpu.local_device(torch_device)
    return str(caught.value)


def test_one_card(here):
    driver = Nvml(rtx3060())
    here(driver)
    (device,) = gpu.devices()
    assert device == card("RTX 3060 12GB").model_copy(
        update={
            "total_bytes": 12 * GIB - DRIVER_BYTES,
            "free_bytes": 10 * GIB,
            "driver": "580.65",
            "power_limit_w": 165.0,
            "pcie_generation": 3,
            "pcie_width": 8,
            "source": "probed",
        }
    )
    assert driver.open == 0


def test_two_cards_in_nvmls_order(here):
    here(Nvml(rtx3060(), rtx4090()))
    assert [(device.name, device.torch_device) for device in gpu.devices()] == [
        ("NVIDIA GeForce RTX 3060", "cuda:0"),
        ("NVIDIA GeForce RTX 4090", "cuda:1"),
    ]


def test_a_lost_card_is_left_out_and_the_other_says_so(here):
    driver = Nvml(NvmlError("GPU is lost"), rtx4090())
    here(driver)
    (device,) = gpu.devices()
    assert (device.name, device.torch_device) == ("NVIDIA GeForce RTX 4090", "cuda:1")
    assert device.notes == ("GPU 0 does not answer and is left out: GPU is lost",)
    assert driver.open == 0


def test_facts_that_the_driver_does_not_give_stay_empty_or_the_catalogues(here):
    here(Nvml(rtx3060(), silent={"cores", "power", "link", "memory_v2"}))
    (device,) = gpu.devices()
    assert device.driver == "580.65"
    assert device.power_limit_w == 170.0
    assert (device.sm_count, device.pcie_generation, device.pcie_width) == (28, 4, 16)
    assert device.total_bytes == 12 * GIB


def test_sm_count_comes_from_the_cores(here):
    here(Nvml(Card("NVIDIA GeForce GTX 1640", 4, uuid="GPU-cccc", capability=(7, 5), cores=768)))
    (device,) = gpu.devices()
    assert device.sm_count == 12
    assert device.source == "assumed"
    assert device.fp16_flops_per_s == pytest.approx(5.967e12 * 12 / 14)


@pytest.mark.parametrize(
    ("reads", "settled"),
    [
        ([9 * GIB], 9 * GIB),
        ([4 * GIB, 7 * GIB, 9 * GIB, 9 * GIB - 5], 9 * GIB - 5),
        ([GIB, 5 * GIB, 3 * GIB, 7 * GIB, 2 * GIB, 2 * GIB], GIB),
    ],
)
def test_free_memory_is_read_until_it_settles(here, reads, settled):
    here(Nvml(rtx3060(free_bytes=[0, *reads] if len(reads) > 1 else reads)))
    (device,) = gpu.devices()
    assert device.free_bytes == settled


def test_mig_instances_are_devices_of_their_own(here):
    parts = [Card(f"NVIDIA A100-SXM4-40GB MIG {i}", 9.75, uuid=f"MIG-{i}", free_bytes=(9 * GIB,)) for i in range(2)]
    here(Nvml(Card("NVIDIA A100-SXM4-40GB", 40, uuid="GPU-dddd", capability=(8, 0), cores=6912, parts=parts)))
    first, second = gpu.devices()
    share = (9.75 * GIB - DRIVER_BYTES) / (40 * GIB - DRIVER_BYTES)
    assert (first.name, second.name) == ("NVIDIA A100-SXM4-40GB MIG 0", "NVIDIA A100-SXM4-40GB MIG 1")
    assert first.total_bytes == int(9.75 * GIB) - DRIVER_BYTES
    assert first.free_bytes == 9 * GIB
    assert first.fp16_flops_per_s == pytest.approx(312e12 * share)
    assert first.bandwidth_bytes_per_s == pytest.approx(1560e9 * share)
    assert first.notes == ("a MIG instance: the rates are the whole card's times 0.24, its share of 42.64 GB",)


def test_a_mig_instance_whose_name_tells_its_profile_has_that_share(here):
    name = "NVIDIA A100-SXM4-40GB"
    parts = [Card(f"{name} MIG 1g.10gb", 9.62, uuid="MIG-0"), Card(f"{name} MIG 1c.3g.20gb", 19.62, uuid="MIG-1")]
    here(Nvml(Card(name, 40, uuid="GPU-dddd", capability=(8, 0), cores=6912, parts=parts)))
    first, second = gpu.devices()
    assert (first.name, first.source, first.sm_count) == (f"{name} MIG 1g.10gb", "probed", 14)
    assert first.total_bytes == int(9.62 * GIB) - DRIVER_BYTES
    assert first.fp16_flops_per_s == pytest.approx(312e12 * 14 / 108)
    assert first.bandwidth_bytes_per_s == pytest.approx(1560e9 * 2 / 8)
    assert first.power_limit_w == pytest.approx(165 * 14 / 108)
    assert first.pcie_width == 8
    assert second.fp16_flops_per_s == pytest.approx(312e12 * 14 / 108)
    assert second.bandwidth_bytes_per_s == pytest.approx(1560e9 * 4 / 8)


def test_mig_mode_without_instances_says_so(here):
    here(Nvml(Card("NVIDIA A100-SXM4-40GB", 40, uuid="GPU-dddd", capability=(8, 0), parts=[])))
    assert gpu.devices() == []
    assert "GPU 0 is in MIG mode, but has no instances" in refusal("cuda")


@pytest.mark.parametrize(
    ("driver", "trouble"),
    [
        (None, "NVML cannot be asked: nvidia-ml-py is not installed"),
        (Nvml(init=NvmlError("NVML Shared Library Not Found")), "NVML does not answer: NVML Shared Library Not Found"),
        (Nvml(), "NVML shows no card"),
    ],
)
def test_no_card_at_all(here, driver, trouble):
    here(driver, Torch(cuda=None, initialized=False))
    assert gpu.devices() == []
    device = gpu.local_device()
    assert device.kind == "cpu"
    assert device.notes[1:] == (f"torch 2.13.0 is built without CUDA; {trouble}",)
    assert refusal("cuda:0") == (
        f"device='cuda:0' was asked for, but torch 2.13.0 is built without CUDA; {trouble}; {WORKS}"
    )


def test_a_card_that_this_torch_cannot_use_is_named(here, monkeypatch):
    here(Nvml(rtx3060()), Torch(initialized=False))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.local_device().notes[1:] == (
        "torch 2.13.0 finds no CUDA device with CUDA_VISIBLE_DEVICES='', although NVML shows NVIDIA GeForce RTX 3060",
    )


def test_the_local_device_is_torchs_not_nvmls_first(here):
    first, second = rtx3060(), rtx4090(free_bytes=(20 * GIB,))
    here(Nvml(first, second), Torch(second, pool_bytes=GIB))
    device = gpu.local_device()
    assert (device.name, device.torch_device) == ("NVIDIA GeForce RTX 4090", "cuda:0")
    assert device.free_bytes == 21 * GIB
    assert device.total_bytes == second.total - DRIVER_BYTES + MIB
    assert gpu.local_device("cuda:0") == device == gpu.local_device("cuda")


@pytest.mark.parametrize(
    ("driver", "torch", "free_bytes"),
    [
        (
            Nvml(rtx3060()),
            Torch(rtx3060(), initialized=False),
            10 * GIB,
        ),  # no context yet: the driver has not counted one
        (Nvml(rtx3060()), Torch(rtx3060(), held_bytes=0), 10 * GIB),  # initialised, and nothing on the card
        (Nvml(rtx3060()), Torch(rtx3060()), 10 * GIB + 300 * MIB),
        (Nvml(rtx3060()), Torch(rtx3060(), pool_bytes=GIB), 11 * GIB + 300 * MIB),
        (None, Torch(rtx3060(), held_bytes=0), 9 * GIB + 300 * MIB),  # torch cannot ask without making one
    ],
)
def test_a_context_that_is_there_is_free_to_who_counts_it_among_the_needs(here, driver, torch, free_bytes):
    here(driver, torch)
    assert gpu.local_device(context_bytes=lambda device: 300 * MIB).free_bytes == free_bytes
    here(driver, torch)
    assert gpu.local_device().free_bytes in {free_bytes, free_bytes - 300 * MIB}


def test_the_context_is_counted_once(here):
    """What just fits an idle card fits it still when this process has a context there, which the driver counts as used."""
    context, pool = bare_context_bytes(card("RTX 3060 12GB")), GIB
    free = []
    for driver, torch in (
        (Nvml(rtx3060(free_bytes=(10 * GIB,))), Torch(rtx3060(), initialized=False)),
        (Nvml(rtx3060(free_bytes=(10 * GIB - context - pool,))), Torch(rtx3060(), held_bytes=0, pool_bytes=pool)),
    ):
        here(driver, torch)
        device, _ = place_of(Question("sd15", profiles=False))
        free.append(budget_for(device, HOST, max_vram=None, max_ram=None).vram_bytes)
    assert free == [10 * GIB, 10 * GIB]


def test_a_card_without_a_known_uuid_is_found_on_the_bus(here):
    first, second = rtx3060(), rtx4090()
    here(Nvml(first, second), Torch(second, first, bare=False))
    assert gpu.local_device("cuda:1").name == "NVIDIA GeForce RTX 3060"
    assert gpu.local_device("cuda:1").driver == "580.65"


def test_the_list_shows_torchs_numbers_and_what_is_hidden(here):
    first, second = rtx3060(), rtx4090()
    here(Nvml(first, second), Torch(second, pool_bytes=2 * GIB))
    hidden, used = gpu.devices()
    assert hidden.notes == ("not among the devices that torch may use here",)
    assert (used.torch_device, used.free_bytes) == ("cuda:0", 12 * GIB)


def test_a_number_too_high_is_told_what_there_is(here):
    first, second = rtx3060(), rtx4090()
    here(Nvml(first, second), Torch(second, first))
    assert refusal("cuda:2") == (
        "device='cuda:2' was asked for, but torch may use "
        f"cuda:0 (NVIDIA GeForce RTX 4090), cuda:1 (NVIDIA GeForce RTX 3060); {WORKS}"
    )


def test_torch_alone_describes_a_card_that_nvml_does_not_show(here):
    here(None, Torch(rtx3060()))
    device = gpu.local_device()
    assert (device.name, device.source, device.free_bytes) == ("NVIDIA GeForce RTX 3060", "probed", 9 * GIB)
    assert device.fp32_flops_per_s == 12.74e12
    assert device.notes == (
        "NVML cannot be asked: nvidia-ml-py is not installed",
        "described by torch alone: no driver version, enforced power limit or current link",
    )


@pytest.mark.parametrize(
    ("torch", "sentence"),
    [
        (Torch(rtx3060(), hip="6.4"), "AMD GPUs (ROCm) are recognised, but not supported yet"),
        (Torch(mps=True), "Apple GPUs (MPS) are recognised, but not supported yet"),
        (Torch(xpu=True), "Intel GPUs (XPU) are recognised, but not supported yet"),
    ],
)
def test_other_makers_are_recognised_and_the_cpu_is_planned_for(here, torch, sentence):
    here(None, torch)
    assert gpu.unsupported() == [sentence]
    device = gpu.local_device()
    assert device.kind == "cpu"
    assert device.notes[-1] == sentence


def test_other_makers_are_refused_by_name(here):
    here(None, Torch(mps=True))
    assert refusal("mps") == f"device='mps' was asked for, but Apple GPUs (MPS) are not supported yet; {WORKS}"
    assert refusal("xpu:0") == f"device='xpu:0' was asked for, but Intel GPUs (XPU) are not supported yet; {WORKS}"
    here(None, Torch(rtx3060(), cuda=None, hip="6.4"))
    assert refusal("cuda") == (
        f"device='cuda' was asked for, but torch 2.13.0 is built for ROCm, which is not supported yet; {WORKS}"
    )


@pytest.mark.parametrize("name", ["gpu", "cuda:first", "cuda:-1", "RTX 3060"])
def test_what_is_no_device_is_refused(here, name):
    here(None)
    assert refusal(name) == f"device={name!r} was asked for, but devices are named 'cuda', 'cuda:0' or 'cpu'; {WORKS}"


def test_the_cpu_says_that_its_rates_are_assumed():
    device = gpu.cpu_device()
    assert (device.name, device.torch_device, device.source) == ("CPU", "cpu", "assumed")
    assert 0 < device.free_bytes <= device.total_bytes
    assert device.fp32_flops_per_s % 80e9 == 0
    assert device.bandwidth_bytes_per_s <= 51.2e9
    assert device.notes[0].startswith("rates assumed for ")


def test_listing_the_cards_does_not_import_torch():
    code = (
        "import sys; from autotune.probe import gpu; gpu.devices(); gpu.cpu_device(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
