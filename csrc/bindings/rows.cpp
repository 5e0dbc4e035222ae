// Rows: packing, quantizing, looking at features.
#include <algorithm>
#include <memory>
#include <tuple>

#include "bindings/define.h"
#include "bindings/records.h"
#include "run/drivers.h"
#include "run/memory.h"
#include "run/sparse.h"

namespace nodebits {
namespace {

void pack(const In& codes, int bits, const Out& packed, int threads) {
  check_bits(bits);
  const int64_t n = size(codes, 0, "codes"), c = size(codes, 1, "codes");
  const PackArgs a{data<uint8_t>(codes, "codes", {n, c}),
                   data<uint8_t>(packed, "packed", {n, packed_row_bytes(c, bits)}), c, bits};
  nb::gil_scoped_release release;
  run_pack(a, n, threads);
}

void unpack(const In& packed, int bits, int64_t num_cols, const Out& codes, int threads) {
  check_bits(bits);
  check_cols(num_cols);
  const int64_t n = size(packed, 0, "packed");
  const UnpackArgs a{data<uint8_t>(packed, "packed", {n, packed_row_bytes(num_cols, bits)}),
                     data<uint8_t>(codes, "codes", {n, num_cols}), num_cols, bits};
  nb::gil_scoped_release release;
  run_unpack(a, n, threads);
}

void gather_rows(const SourceIn& source, const In& index, int64_t begin, int64_t end,
                 const In& scale, const In& zero_point, int axis, const Out& out, int threads) {
  const int64_t count = size(index, 0, "index"), c = source.num_cols;
  check(0 <= begin && begin <= end && end <= count, "begin and end must be a range of the index");
  const uint8_t* packed = source.checked();
  const int64_t length = scale_length(axis, source.rows(), c);
  const GatherArgs a{packed,
                     data<int32_t>(index, "index", {count}) + begin,
                     data<float>(scale, "scale", {length}),
                     data<float>(zero_point, "zero_point", {length}),
                     data<float>(out, "out", {end - begin, c}),
                     c,
                     axis,
                     source.bits};
  nb::gil_scoped_release release;
  run_gather(a, end - begin, threads);
}

QuantizeArgs quantize_args(const In& x, const In& scale, const In& zero_point, int axis, int bits) {
  check_bits(bits);
  const int64_t n = size(x, 0, "x"), c = size(x, 1, "x");
  const int64_t length = scale_length(axis, n, c);
  QuantizeArgs a{};
  a.x = data<float>(x, "x", {n, c});
  a.scale = data<float>(scale, "scale", {length});
  a.zero_point = data<float>(zero_point, "zero_point", {length});
  a.num_cols = c;
  a.axis = axis;
  a.bits = bits;
  return a;
}

void quantize_pack(const In& x, const In& scale, const In& zero_point, int axis, int bits,
                   const OptionalIn& row_factor, const Out& packed, int threads) {
  QuantizeArgs a = quantize_args(x, scale, zero_point, axis, bits);
  const int64_t n = size(x, 0, "x");
  if (row_factor) a.row_factor = data<float>(*row_factor, "row_factor", {n});
  a.packed = data<uint8_t>(packed, "packed", {n, packed_row_bytes(a.num_cols, bits)});
  nb::gil_scoped_release release;
  run_quantize(a, n, threads);
}

void fake_quantize(const In& x, const In& scale, const In& zero_point, int axis, int bits,
                   const Out& codes, int threads) {
  QuantizeArgs a = quantize_args(x, scale, zero_point, axis, bits);
  const int64_t n = size(x, 0, "x");
  a.codes = data<float>(codes, "codes", {n, a.num_cols});
  if (n * a.num_cols == 0) return;
  nb::gil_scoped_release release;
  run_quantize(a, n, threads);
}

void fake_quantize_backward(const In& grad, const In& x, const In& scale, const In& zero_point,
                            int axis, int bits, int mode, const Out& grad_x, const Out& grad_scale,
                            const Out& grad_zero_point, int threads) {
  const QuantizeArgs q = quantize_args(x, scale, zero_point, axis, bits);
  check(mode >= 0 && mode <= 2, "mode must be 0 (clip), 1 (pass) or 2 (strict)");
  const int64_t n = size(x, 0, "x"), c = q.num_cols;
  const int64_t length = scale_length(axis, n, c);
  const QuantizeBackwardArgs a{data<float>(grad, "grad", {n, c}),
                               q.x,
                               q.scale,
                               q.zero_point,
                               data<float>(grad_x, "grad_x", {n, c}),
                               data<float>(grad_scale, "grad_scale", {length}),
                               data<float>(grad_zero_point, "grad_zero_point", {length}),
                               c,
                               axis,
                               bits,
                               static_cast<Gradient>(mode)};
  nb::gil_scoped_release release;
  run_quantize_backward(a, n, threads);
}

void unpack_bucketed(const MixedIn& rows, const OptionalIn& shift, const Out& codes, int threads) {
  const Buckets buckets = buckets_of(rows);
  const int64_t n = buckets.rows;
  const uint8_t* from = data<uint8_t>(rows.packed, "packed", {buckets.bytes()});
  const uint8_t* by = shift ? data<uint8_t>(*shift, "shift", {n}) : nullptr;
  uint8_t* to = data<uint8_t>(codes, "codes", {n, rows.num_cols});
  nb::gil_scoped_release release;
  run_unpack_bucketed(from, by, to, buckets, threads);
}

bool pack_bucketed(const In& x, const In& scale, const In& zero_point, int axis, const In& widths,
                   const In& position, const OptionalIn& row_factor, bool look, const Out& packed,
                   int threads) {
  const int64_t n = size(x, 0, "x"), c = size(x, 1, "x");
  FusedOutput o{};
  const float* from = data<float>(x, "x", {n, c});
  place_rows(&o, widths, OptionalIn(position), OptionalIn(), n, c);
  o.axis = axis;
  o.bits = 8;
  o.scale = data<float>(scale, "scale", {scale_length(axis, n, c)});
  std::vector<float> spread;
  o.zero_point = by_width(data<float>(zero_point, "zero_point", {8}), axis, c, &spread);
  if (row_factor) o.row_factor = data<float>(*row_factor, "row_factor", {n});
  o.packed = data<uint8_t>(packed, "packed", {o.bytes});
  nb::gil_scoped_release release;
  return run_quantize_mixed(o, from, n, c, look, threads);
}

void quantize_pack_bucketed(const In& x, const In& scale, const In& zero_point, int axis,
                            const In& widths, const In& position, const OptionalIn& row_factor,
                            const Out& packed, int threads) {
  pack_bucketed(x, scale, zero_point, axis, widths, position, row_factor, false, packed, threads);
}

// The same; returns whether all values are finite.
bool quantize_pack_checked(const In& x, const In& scale, const In& zero_point, int axis,
                           const In& widths, const In& position, const OptionalIn& row_factor,
                           const Out& packed, int threads) {
  return pack_bucketed(x, scale, zero_point, axis, widths, position, row_factor, true, packed,
                       threads);
}

// Bytes of the buckets of these widths.
int64_t bucket_bytes(const In& widths, int64_t cols) {
  const int64_t n = size(widths, 0, "widths");
  int64_t counts[9] = {}, total = 0;
  count_widths(data<uint8_t>(widths, "widths", {n}), n, counts);
  for (int b = 1; b <= 8; ++b) total += counts[b] * packed_row_bytes(cols, b);
  return total;
}

void nearest_group(const In& extent, const In& limits, const Out& group, int threads) {
  const int64_t n = size(extent, 0, "extent"), m = size(limits, 0, "limits");
  check(m > 0, "limits must hold at least one group");
  const float* f = data<float>(extent, "extent", {n});
  const float* q = data<float>(limits, "limits", {m});
  int32_t* to = data<int32_t>(group, "group", {n});
  nb::gil_scoped_release release;
  run_nearest_group(f, n, q, m, to, threads);
}

// (number of codes or -1, whether a value is negative, whether a row has two different codes)
std::tuple<int64_t, bool, bool, bool> scan(const In& x, int bits, float min_scale,
                                           const Out& extent, const Out& counts, const Out& first,
                                           const Out& sums, const Out& indices, const Out& codes,
                                           const std::optional<Out>& packed, const Out& scale,
                                           bool symmetric, bool trim, int threads) {
  check_bits(bits);
  const int64_t n = size(x, 0, "x"), c = size(x, 1, "x"), room = size(indices, 0, "indices");
  const ScanArgs a{
      data<float>(x, "x", {n, c}),
      data<float>(extent, "extent", {n}),
      data<int64_t>(counts, "counts", {n}),
      data<int32_t>(first, "first", {n}),
      data<int32_t>(sums, "sums", {n}),
      packed ? data<uint8_t>(*packed, "packed", {n, packed_row_bytes(c, bits)}) : nullptr,
      packed ? data<float>(scale, "scale", {n}) : nullptr,
      c,
      min_scale,
      bits,
      symmetric,
      trim};
  int32_t* to = data<int32_t>(indices, "indices", {room});
  uint8_t* code = data<uint8_t>(codes, "codes", {room});
  nb::gil_scoped_release release;
  const SparseFound found = run_scan(a, n, to, code, room, threads);
  return {found.count, found.flags.negative, found.flags.mixed, found.flags.finite};
}

// Bytes on pages of their own, see map_pages; None where there are none.
std::optional<nb::ndarray<uint8_t, nb::ndim<1>, nb::device::cpu>> fresh_bytes(int64_t bytes) {
  check(bytes > 0, "bytes must be positive");
  struct Pages {
    explicit Pages(size_t n) : bytes(n), memory(map_pages(n)) {}
    ~Pages() {
      if (memory != nullptr) unmap_pages(memory, bytes);
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    size_t bytes;
    void* memory;
  };
  auto pages = std::make_unique<Pages>(static_cast<size_t>(bytes));
  void* memory = pages->memory;
  if (memory == nullptr) return std::nullopt;
  const nb::capsule owner(pages.get(), [](void* p) noexcept { delete static_cast<Pages*>(p); });
  pages.release();
  return nb::ndarray<uint8_t, nb::ndim<1>, nb::device::cpu>(memory, {static_cast<size_t>(bytes)},
                                                            owner);
}

}  // namespace

void define_rows(nb::module_& m) {
  define(m, "pack", &pack);
  define(m, "unpack", &unpack);
  define(m, "gather_rows", &gather_rows);
  define(m, "quantize_pack", &quantize_pack);
  define(m, "fake_quantize", &fake_quantize);
  define(m, "fake_quantize_backward", &fake_quantize_backward);
  define(m, "unpack_bucketed", &unpack_bucketed);
  define(m, "quantize_pack_bucketed", &quantize_pack_bucketed);
  define(m, "quantize_pack_checked", &quantize_pack_checked);
  define(m, "bucket_bytes", &bucket_bytes);
  define(m, "nearest_group", &nearest_group);
  define(m, "scan", &scan);
  define(m, "fresh_bytes", &fresh_bytes);
}

}  // namespace nodebits
