// What the file has in another form (docs/format.md, "Features") is brought into that of a plan's
// inputs once; codes stay where they are mapped.
#include "capi/features.h"

#include <algorithm>
#include <utility>

#include "capi/guard.h"
#include "capi/handles.h"
#include "contract/rows.h"
#include "plan/json_reader.h"

namespace nodebits {
namespace {

template <class T>
Array fresh(DType dtype, int64_t n, T** data) {
  const auto memory = std::shared_ptr<T[]>(new T[static_cast<size_t>(std::max<int64_t>(1, n))]);
  *data = memory.get();
  Array made{dtype, 1, {n}, memory.get(), nullptr};
  made.owner = std::shared_ptr<void>(memory, memory.get());
  return made;
}

unsigned field_at(const Array& packed, int bits, int64_t i) {
  const auto* from = static_cast<const uint8_t*>(packed.data);
  const int64_t bit = bits * i, byte = bit / 8;
  unsigned word = from[byte];
  if (byte + 1 < packed.shape[0]) word |= static_cast<unsigned>(from[byte + 1]) << 8;
  return (word >> (bit % 8)) & ((1u << bits) - 1);
}

// Values of three bits, plus something, of so many rows.
Array unpacked(const StoredFile& file, const std::string& tensor, int64_t rows, unsigned plus) {
  const Array packed = file.tensor(tensor);
  if (packed.dtype != DType::u8 || packed.ndim != 1 || packed.count() != packed_row_bytes(rows, 3))
    file.damaged("tensor " + quoted(tensor) + " is of another number of rows");
  uint8_t* to;
  const Array made = fresh(DType::u8, rows, &to);
  for (int64_t i = 0; i < rows; ++i) to[i] = static_cast<uint8_t>(field_at(packed, 3, i) + plus);
  return made;
}

// Scales of a site's nodes: themselves, or a table and their places in it.
Array scales_of(const StoredFile& model, const std::string& site, int64_t rows) {
  if (model.has(site + ".node_scale")) return model.tensor(site + ".node_scale");
  const Array table = model.tensor(site + ".scale_table"),
              packed = model.tensor(site + ".scale_index");
  int bits = 1;
  while ((int64_t{1} << bits) < table.count()) ++bits;
  if (table.dtype != DType::f32 || packed.dtype != DType::u8 || table.count() != 1 << bits ||
      packed.count() != packed_row_bytes(rows, bits))
    model.damaged("the scales of site " + quoted(site) + " are of another number of rows");
  float* to;
  const Array made = fresh(DType::f32, rows, &to);
  const auto* values = static_cast<const float*>(table.data);
  for (int64_t i = 0; i < rows; ++i) to[i] = values[field_at(packed, bits, i)];
  return made;
}

const std::string& text_of(const plan::Json& about, const char* key) {
  static const std::string none;
  const plan::Json* found = about.find(key);
  return found == nullptr ? none : found->text;
}

}  // namespace

Features::Features(Bytes bytes, const std::string& name, bool every_byte)
    : file_(std::move(bytes), name, kFeaturesFile, every_byte) {
  const plan::Json shape = entry("shape", plan::Json::Kind::list);
  // Bytes of such rows are counted in 64 bits.
  constexpr int64_t kMost = int64_t{1} << 40;
  for (const plan::Json& size : shape.items) {
    if (size.integer < 0 || size.integer > kMost) file_.damaged("its header has no such shape");
  }
  if (shape.items.size() != 2) file_.damaged("its header says no shape");
  rows_ = shape.items[0].integer;
  cols_ = shape.items[1].integer;
  if (file_.format() == kRows) {
    make_rows();
    return;
  }
  about_ = entry("rows", plan::Json::Kind::object);
  for (const auto& [site, about] : about_.fields) make(site, about);
}

plan::Json Features::entry(const char* key, plan::Json::Kind kind) const {
  const std::string_view text = file_.entry(key);
  plan::Json found = plan::read_json(text.empty() ? "null" : text);
  if (!found.is(kind)) file_.damaged("its header says no " + std::string(key));
  return found;
}

void Features::make_rows() {
  const int64_t bits = entry("bits", plan::Json::Kind::integer).integer;
  const std::string granularity = entry("granularity", plan::Json::Kind::text).text;
  entry("signed", plan::Json::Kind::boolean);
  if (bits < 1 || bits > 8) file_.damaged("its header has no such rows");
  const Array packed = expected("packed", DType::u8, 2), scale = expected("scale", DType::f32, 1);
  const bool by_row = granularity == "row";
  if (packed.shape[0] != rows_ ||
      packed.shape[1] != packed_row_bytes(cols_, static_cast<int>(bits)) ||
      (by_row && scale.shape[0] != rows_))
    file_.damaged("its tensors are of another shape than its header says");
  fields_["packed"] = packed;
  if (by_row) fields_["scale"] = scale;
}

Array Features::expected(const std::string& name, DType dtype, int ndim) const {
  const Array found = file_.tensor(name);
  if (found.dtype != dtype || found.ndim != ndim)
    file_.damaged("tensor " + quoted(name) + " has another dtype or shape");
  return found;
}

void Features::make(const std::string& site, const plan::Json& about) {
  const std::string& kind = text_of(about, "kind");
  const plan::Json* axis = about.find("axis");
  if (kind == "float") {
    fields_[site + "/values"] = expected(site + "/values", DType::f32, 2);
  } else if (kind == "dense") {
    fields_[site + "/packed"] = expected(site + "/packed", DType::u8, 2);
  } else if (kind == "sparse") {
    make_sparse(site);
  } else if (kind == "bucketed") {
    make_mixed(site);
  } else {
    file_.damaged("the rows of site " + quoted(site) + " are of the unknown kind " + quoted(kind));
  }
  const bool by_row = kind == "sparse" || (axis != nullptr && axis->integer == 0);
  if (by_row && file_.has(site + "/scale"))
    fields_[site + "/scale"] = expected(site + "/scale", DType::f32, 1);
}

void Features::make_sparse(const std::string& site) {
  const Array counts = expected(site + "/counts", DType::i32, 1);
  const std::string name = site + "/indices";
  const Array indices =
      file_.is_short(name) ? file_.widened(name) : expected(site + "/indices", DType::i32, 1);
  int64_t* at;
  const Array indptr = fresh(DType::i64, counts.shape[0] + 1, &at);
  const auto* n = static_cast<const int32_t*>(counts.data);
  at[0] = 0;
  for (int64_t row = 0; row < counts.shape[0]; ++row) {
    if (n[row] < 0) file_.damaged("a row of site " + quoted(site) + " has fewer than no values");
    at[row + 1] = at[row] + n[row];
  }
  if (at[counts.shape[0]] != indices.count())
    file_.damaged("the rows of site " + quoted(site) + " have other numbers of values than stored");
  fields_[site + "/indptr"] = indptr;
  fields_[name] = indices;
  fields_[site + "/row_code"] = expected(site + "/row_code", DType::i32, 1);
  fields_[site + "/row_sum"] = expected(site + "/row_sum", DType::i32, 1);
  if (file_.has(site + "/codes"))
    fields_[site + "/values"] = expected(site + "/codes", DType::u8, 1);
}

void Features::make_mixed(const std::string& site) {
  fields_[site + "/packed"] = expected(site + "/packed", DType::u8, 1);
  for (const char* part : {"widths", "shift"}) {
    const std::string name = site + "/" + part;
    const unsigned plus = std::string_view(part) == "widths" ? 1 : 0;
    if (file_.has(name)) fields_[name] = unpacked(file_, name, rows_, plus);
  }
}

// Of rows whose widths and scales are those of the model's nodes.
Array Features::bound_part(const StoredFile& model, const std::string& site,
                           const std::string& field) const {
  if (field == "widths") return unpacked(model, site + ".packed_widths", rows_, 1);
  if (field == "shift") return unpacked(model, site + ".packed_shift", rows_, 0);
  return scales_of(model, site, rows_);
}

// Rows are those of a site that packs features alike: each with the scale of its own values.
Array Features::row_part(const StoredFile& model, const std::string& site, const std::string& field,
                         const plan::Json& wanted) const {
  const int64_t bits = entry("bits", plan::Json::Kind::integer).integer;
  const bool is_signed = entry("signed", plan::Json::Kind::boolean).boolean;
  const std::string granularity = entry("granularity", plan::Json::Kind::text).text;
  const auto other = [&](const std::string& why) {
    throw PlanError("ConfigError", file_.name() + " does not fit site " + quoted(site) + " (" +
                                       why + "): pack the matrix as that site does, or with " +
                                       "packed.pack_input");
  };
  const plan::Json layers = plan::read_json(model.entry("layers"));
  const size_t dot = site.rfind('.');
  const auto inner = [](const plan::Json* from, const std::string& key) {
    return from == nullptr ? nullptr : from->find(key);
  };
  const plan::Json* reader = inner(&layers, site.substr(0, std::min(dot, site.size())));
  reader = inner(inner(reader, "sites"), site.substr(dot == std::string::npos ? 0 : dot + 1));
  const plan::Json *kind = inner(reader, "kind"), *sign = inner(reader, "signed");
  if (kind == nullptr || kind->text != "dynamic_row") other("which has scales of the model");
  if (granularity != "row") other("it has a scale per " + granularity + ", the site one per row");
  if (sign == nullptr || sign->boolean != is_signed)
    other(is_signed ? "its codes have a sign" : "its codes have no sign");
  if (text_of(wanted, "kind") != "dense")
    other("the plan is of " + text_of(wanted, "kind") + " rows; make one of " +
          "PackedFeatures(path).input_of(packed)");
  const plan::Json *width = wanted.find("bits"), *cols = wanted.find("num_cols");
  if (width == nullptr || width->integer != bits) other("it has " + std::to_string(bits) + " bits");
  if (cols == nullptr || cols->integer != cols_)
    other("it has " + std::to_string(cols_) + " columns");
  const auto found = fields_.find(field);
  if (found == fields_.end()) other("it has no " + field);
  return found->second;
}

Array Features::part(const StoredFile& model, const std::string& site, const std::string& field,
                     const plan::Json& wanted) const {
  if (file_.format() == kRows) return row_part(model, site, field, wanted);
  const auto other = [&](const std::string& why) {
    throw PlanError("ConfigError", file_.name() + " was packed for another model (" + why +
                                       "): pack the features again with this one");
  };
  const plan::Json* about = about_.find(site);
  if (about == nullptr) other("it has no rows of site " + quoted(site));
  for (const auto& [key, value] : wanted.fields) {
    const plan::Json* has = about->find(key);
    if (has != nullptr && (has->integer != value.integer || has->text != value.text))
      other("the " + key + " of site " + quoted(site) + " differs");
  }
  const plan::Json* sums = about->find("site");
  if (sums == nullptr) file_.damaged("its header has no checksums of site " + quoted(site));
  for (const auto& [buffer, sum] : sums->fields) {
    if (model.checksum(site + "." + buffer) != sum.integer)
      other("the " + buffer + " of site " + quoted(site) + " differs");
  }
  const plan::Json* bound = about->find("bound");
  if (bound != nullptr && bound->boolean && field != "packed")
    return bound_part(model, site, field);
  const auto found = fields_.find(site + "/" + field);
  if (found == fields_.end()) other("site " + quoted(site) + " has no " + field);
  return found->second;
}

}  // namespace nodebits

using namespace nodebits;

extern "C" {

nb_status nb_features_load(const char* path, unsigned flags, nb_features** features) {
  return guarded([&] {
    need(features, "features");
    *features = nullptr;
    need(path, "path");
    if (flags > NB_SKIP_CHECKSUMS)
      throw PlanError("ConfigError", "flags " + std::to_string(flags) + " are unknown");
    const bool every_byte = (flags & NB_SKIP_CHECKSUMS) == 0;
    *features = new nb_features{std::make_shared<const Features>(map_file(path), path, every_byte)};
  });
}

void nb_features_free(nb_features* features) { delete features; }

}  // extern "C"
