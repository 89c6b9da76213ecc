# SPDX-License-Identifier: Apache-2.0
"""Tests of scripts/nvcc_gate.py. With nvcc they compile small kernels; without it only what needs none runs."""
import importlib.util
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
SPEC = importlib.util.spec_from_file_location("nvcc_gate", ROOT / "scripts" / "nvcc_gate.py")
gate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gate)
NVCC = gate.nvcc_path()

CLEAN = """#include "emo_gpu.h"
template <int N> __global__ void product_kernel(float *o, const uint32_t *x) {
    float d[4] = {0, 0, 0, 0};
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; i++) a[i] = x[threadIdx.x * 6 + i];
    for (int i = 0; i < 2; i++) b[i] = x[threadIdx.x * 6 + 4 + i];
    for (int i = 0; i < N; i++) emo_mma_bf16(d, a, b);
    for (int i = 0; i < 4; i++) o[threadIdx.x * 4 + i] = d[i];
}
__global__ void shared_kernel(float *o) {
    EMO_SHARED(float, s, 64);
    s[threadIdx.x] = o[threadIdx.x];
    __syncthreads();
    o[threadIdx.x] = s[63 - threadIdx.x];
}
template __global__ void product_kernel<3>(float *, const uint32_t *);
"""
LOCAL = """#include "emo_gpu.h"
__global__ void local_kernel(float *o, const int *at) {
    float v[32];
    for (int i = 0; i < 32; i++) v[i] = o[i];
    for (int i = 0; i < 32; i++) v[at[i]] += 1.0f;
    for (int i = 0; i < 32; i++) o[i] = v[i];
}
"""
SPILL = """#include "emo_gpu.h"
__global__ void __launch_bounds__(1024) spill_kernel(float *o, int n) {
    float v[120];
#pragma unroll
    for (int i = 0; i < 120; i++) v[i] = o[i * n];
#pragma unroll
    for (int i = 0; i < 120; i++) v[i] += v[(i * 7 + 3) % 120] * o[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 120; i++) o[i * n] = v[i] + v[(i * 11 + 5) % 120];
}
"""


EXPERTS, ATTENTION = "ops/experts_forward.cu:experts_bf16_k<0>", "ops/attention_bf16.cu:forward_k<64>"
PRODUCT = "ops/product.cu:product_bf16_k<false,true>"


class WithoutNvcc(unittest.TestCase):
    def test_matrix_kernels_must_have_tensor_instructions(self):
        rows = [(EXPERTS, "80", 90, 0, 64), (ATTENTION, "80", 90, 0, 64), (PRODUCT, "80", 90, 0, 64),
                ("ops/norm.cu:norm_kernel", "80", 30, 0, 0)]
        self.assertEqual(gate.check_matrix(rows), [])
        bad = gate.check_matrix(rows + [(ATTENTION, "90", 90, 0, 0)])
        self.assertEqual(bad, [ATTENTION + " for sm_90 has no tensor-core instruction"])
        self.assertIn("out of date", gate.check_matrix(rows[3:])[0])

    def test_table(self):
        rows = [("b_kernel", "90", 20, 16, 0), ("a_kernel", "100", 20, 0, 0), ("a_kernel", "90", 20, 0, 0)]
        lines = gate.render("13.0.1", rows)
        self.assertEqual(lines[2:], ["a_kernel 90 20 0 0", "a_kernel 100 20 0 0", "b_kernel 90 20 16 0"])
        with tempfile.TemporaryDirectory() as folder:
            gate.TABLE, kept = pathlib.Path(folder) / "registers.txt", gate.TABLE
            try:
                self.assertTrue(gate.compare(lines, "13.0.1")[1])
                gate.TABLE.write_text("\n".join(lines) + "\n")
                self.assertEqual(gate.compare(lines, "13.0.1")[0], [])
                changed = lines[:-1] + ["b_kernel 90 21 16 0"]
                self.assertEqual(gate.compare(changed, "13.0.1"), (["- b_kernel 90 20 16 0", "+ b_kernel 90 21 16 0"], True))
                self.assertFalse(gate.compare(changed, "13.1.0")[1])
            finally:
                gate.TABLE = kept

    def test_headers_of_a_source(self):
        names = [path.relative_to(ROOT).as_posix() for path in gate.with_headers(ROOT / "cuda" / "gemm.cu")]
        self.assertEqual(names[0], "cuda/gemm.cu")
        for name in ("cuda/emo_gpu.h", "cuda/kernel.h", "include/emo/sys/backend.h"):
            self.assertIn(name, names)

    @unittest.skipUnless(gate.TABLE.exists(), "there is no table yet")
    def test_the_committed_table_has_every_architecture(self):
        lines = [line.split() for line in gate.TABLE.read_text().splitlines()[2:]]
        self.assertTrue(lines)
        self.assertEqual({line[-4] for line in lines}, set(gate.ARCHS))
        self.assertEqual(gate.check_matrix([(l[0], l[-4], 0, 0, int(l[-1])) for l in lines]), [])


@unittest.skipUnless(NVCC, "nvcc is not installed")
class WithNvcc(unittest.TestCase):
    def compile(self, text, arch):
        with tempfile.TemporaryDirectory() as folder:
            # The gate names files by their place in cuda/.
            source = pathlib.Path(folder) / "cuda" / "x.cu"
            source.parent.mkdir()
            source.write_text(text)
            root, gate.ROOT = gate.ROOT, pathlib.Path(folder)
            for path in (ROOT / "include", *(ROOT / "cuda").glob("*.h")):
                (pathlib.Path(folder) / path.relative_to(ROOT)).symlink_to(path)
            try:
                return gate.compile_one(NVCC, source, arch, pathlib.Path(folder))
            finally:
                gate.ROOT = root

    def test_clean(self):
        bad, rows = self.compile(CLEAN, "90")
        self.assertEqual(bad, [])
        found = {row[0]: row for row in rows}
        self.assertEqual(found["x.cu:product_kernel<3>"][4], 3)
        self.assertEqual(found["x.cu:shared_kernel"][3:], (256, 0))
        self.assertGreater(found["x.cu:shared_kernel"][2], 0)
        self.assertEqual(self.compile(CLEAN, "ptx"), ([], []))

    def test_local_memory(self):
        bad, _ = self.compile(LOCAL, "80")
        self.assertTrue(any("local_kernel has 128 bytes stack frame" in line for line in bad), bad)

    def test_spills(self):
        bad, _ = self.compile(SPILL, "80")
        self.assertTrue(any("spill_kernel has" in line for line in bad), bad)

    def test_errors(self):
        bad, rows = self.compile("#include \"emo_gpu.h\"\n__global__ void k() { none(); }\n", "80")
        self.assertIn("identifier \"none\" is undefined", bad[0])
        self.assertEqual(rows, [])


if __name__ == "__main__":
    unittest.main()
