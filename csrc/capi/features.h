// Features that nodebits has packed, as the inputs of plans that take them.
#pragma once

#include <string>
#include <unordered_map>

#include "capi/file.h"
#include "plan/json.h"

namespace nodebits {

class Features {
 public:
  // Throws PlanError: FileFormatError, FileVersionError.
  Features(Bytes bytes, const std::string& name, bool every_byte);

  // A field of the rows of a site, such as "packed" or "indptr".
  // Throws PlanError, ConfigError, where they were packed for another model. `wanted` is what the
  // plan says of the rows: their kind, bits and columns; null says nothing.
  Array part(const StoredFile& model, const std::string& site, const std::string& field,
             const plan::Json& wanted) const;

 private:
  // Of rows without a model, which fit every site that reads such.
  void make_rows();
  Array row_part(const StoredFile& model, const std::string& site, const std::string& field,
                 const plan::Json& wanted) const;
  void make(const std::string& site, const plan::Json& about);
  void make_sparse(const std::string& site);
  void make_mixed(const std::string& site);
  Array bound_part(const StoredFile& model, const std::string& site,
                   const std::string& field) const;
  // A tensor that must be there, of a dtype and with so many axes.
  Array expected(const std::string& name, DType dtype, int ndim) const;
  // An entry of the header, which must be of a kind.
  plan::Json entry(const char* key, plan::Json::Kind kind) const;

  StoredFile file_;
  plan::Json about_;  // of the rows by site
  int64_t rows_ = 0, cols_ = 0;
  std::unordered_map<std::string, Array> fields_;  // by "site/field"
};

}  // namespace nodebits
