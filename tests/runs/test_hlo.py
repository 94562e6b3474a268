import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from diffjax.runs import hlo

PROGRAM = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%fused (param_0: f32[8,16]) -> bf16[16,8] {
  %param_0 = f32[8,16]{1,0} parameter(0)
  %transpose.1 = f32[16,8]{1,0} transpose(%param_0), dimensions={1,0}
  ROOT %convert.1 = bf16[16,8]{1,0} convert(%transpose.1)
}

%region_0.1 (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%x, %y)
}

ENTRY %main (p: f32[8,16]) -> (bf16[16,8], f32[8]) {
  %p = f32[8,16]{1,0:T(8,128)} parameter(0)
  %fusion.1 = bf16[16,8]{1,0:T(8,128)(2,1)} fusion(%p), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/transpose"}
  %copy.2 = f32[8,16]{0,1} copy(%p)
  %copy-start.1 = (f32[8,16]{1,0:S(1)}, f32[8,16]{1,0}, u32[]{:S(2)}) copy-start(%copy.2)
  %copy-done.1 = f32[8,16]{1,0:S(1)} copy-done(%copy-start.1)
  %slice-start.1 = ((f32[8,16]{1,0}), f32[2,16]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%copy.2), slice={[0:2], [0:16]}
  %slice-done.1 = f32[2,16]{1,0:S(1)} slice-done(%slice-start.1)
  %all-reduce.1 = f32[8,16]{1,0} all-reduce(%copy-done.1), replica_groups={{0,1}}, to_apply=%region_0.1
  ROOT %tuple = (bf16[16,8]{1,0}, f32[8,16]{1,0}) tuple(%fusion.1, %all-reduce.1)
}
"""


def test_instructions_of_a_program():
    found = list(hlo.instructions(PROGRAM))
    assert [one.opcode for one in found] == ["parameter", "fusion", "copy", "copy", "slice", "all-reduce", "tuple"]
    _, fusion, copy, prefetch, part, exchange, _ = found
    assert fusion == hlo.Instruction("fusion", output=256, operands=512, moved=768, source="jit(f)/transpose")
    assert copy == hlo.Instruction("copy", output=512, operands=512, moved=1024, source="")
    assert (prefetch.output, prefetch.operands, prefetch.moved) == (512, 512, 512)  # into on-chip memory
    assert (part.output, part.operands, part.moved) == (128, 512, 128)
    assert (exchange.operands, exchange.moved) == (512, 512)  # from on-chip memory


@pytest.mark.parametrize(
    ("shape", "size"),
    [("f32[]", 4), ("pred[3]", 3), ("bf16[2,3]{1,0:T(8,128)}", 12), ("(s32[2], u8[5])", 13), ("f8e4m3fn[4]", 4)],
)
def test_bytes_of_a_shape(shape, size):
    assert hlo.num_bytes(shape) == size
    assert hlo.num_bytes(f"({shape}, f32[8]{{0:S(1)}})", main_only=True) == size


def test_the_programs_that_jax_compiles():
    mesh = jax.make_mesh((4,), ("d",), devices=jax.devices()[:4])
    split = NamedSharding(mesh, PartitionSpec("d"))

    def f(x):
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry) @ carry, None), jnp.sum(x, axis=0), length=3)[0]

    text = jax.jit(f, in_shardings=split).lower(jnp.ones((8, 16, 16))).compile().as_text()
    found = list(hlo.instructions(text))
    (exchange,) = [one for one in found if one.opcode == "all-reduce"]
    assert exchange.operands == 16 * 16 * 4
    assert sum(one.opcode == "dot" for one in found) <= 1  # a loop counts once
