/* Runs packed graph neural networks that nodebits has saved. Needs neither Python nor torch.
 *
 *     nb_model* model;
 *     nb_run* run;
 *     nb_array out;
 *     if (nb_load("model.safetensors", 0, &model) || nb_run_new(model, &run) ||
 *         nb_set_input(run, "x", &x) || nb_set_input(run, "edge_index", &edges) ||
 *         nb_execute(run) || nb_output(run, 0, &out))
 *       fprintf(stderr, "%s\n", nb_error());
 *
 * A model may be used by any number of threads at once, each with a run of its own; a run and what
 * nb_output gave of it belong to one thread at a time. A graph may be shared by runs. Handles may
 * be freed in any order: what a run still needs lives until the run is freed.
 *
 * Functions that can fail return 0, or a status and leave a sentence in nb_error(). */
#ifndef NODEBITS_H
#define NODEBITS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define NB_API __attribute__((visibility("default")))
#else
#define NB_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a function or a struct changes; new functions do not raise it. */
#define NB_API_VERSION 1

typedef struct nb_model nb_model; /* a file that was read; never changes */
typedef struct nb_graph nb_graph; /* an adjacency, and what was computed of it; never changes */
typedef struct nb_features nb_features; /* packed features that were read; never change */
typedef struct nb_run nb_run;           /* inputs, workspace and outputs of one forward at a time */

typedef enum {
  NB_OK = 0,
  NB_ERROR_FILE = 1,        /* missing, foreign, truncated or damaged */
  NB_ERROR_VERSION = 2,     /* written by a newer nodebits */
  NB_ERROR_ARGUMENT = 3,    /* of a wrong type or size, or out of range */
  NB_ERROR_UNSUPPORTED = 4, /* what this library cannot run; the sentence says why */
  NB_ERROR_MEMORY = 5,      /* ran out */
  NB_ERROR_INTERRUPTED = 6, /* by nb_interrupt */
  NB_ERROR_INTERNAL = 7     /* a fault of the library */
} nb_status;

typedef enum {
  NB_FLOAT32 = 0,
  NB_FLOAT64 = 1,
  NB_UINT8 = 2,
  NB_INT32 = 3,
  NB_INT64 = 4,
  NB_BOOL = 5
} nb_dtype;

#define NB_MOST_AXES 8

/* Contiguous, row-major numbers. */
typedef struct {
  int32_t dtype; /* nb_dtype */
  int32_t ndim;
  int64_t shape[NB_MOST_AXES];
  const void* data;
} nb_array;

/* What a model takes: sizes of -1 may be any. */
typedef struct {
  const char* name;
  int32_t dtype;
  int32_t ndim;
  int64_t shape[NB_MOST_AXES];
  int32_t is_graph; /* 1: an edge index, for which nb_set_graph may be used */
} nb_input_info;

/* ---- The library ---- */
NB_API int nb_api_version(void);
NB_API const char* nb_version(void);
/* What failed last on this thread, as a sentence; "" before anything did. */
NB_API const char* nb_error(void);
/* Name of the class of nodebits.core.errors that Python would raise, such as "NodeIndexError". */
NB_API const char* nb_error_kind(void);
/* The instruction set in use: the best that the processor has, or what nb_set_isa or the
 * environment variable NODEBITS_ISA asked for. Results do not depend on it. */
NB_API const char* nb_isa(void);
NB_API nb_status nb_set_isa(const char* name);
/* Name of level 0, 1, ..., slowest first, NULL beyond the last; whether this machine has it. */
NB_API const char* nb_isa_level(int index, int* available);

/* ---- Models ---- */
/* Checksums of tensors are not compared: a file of many gigabytes is ready at once. The header
 * and the contents, which it is made of, always are. */
#define NB_SKIP_CHECKSUMS 1u

/* Maps a file: weights are read where they lie. It must not be written to while it is in use;
 * nodebits replaces files, which is safe. */
NB_API nb_status nb_load(const char* path, unsigned flags, nb_model** model);
/* The same of bytes in memory, which must stay as they are until the last handle is freed. */
NB_API nb_status nb_load_memory(const void* data, size_t bytes, unsigned flags, nb_model** model);
NB_API void nb_model_free(nb_model* model);
/* The file's header: JSON with the plan and the user's metadata. Lives as long as the model. */
NB_API const char* nb_model_header(const nb_model* model);
NB_API int nb_num_inputs(const nb_model* model);
NB_API int nb_num_outputs(const nb_model* model);
/* The name lives as long as the model. */
NB_API nb_status nb_input(const nb_model* model, int index, nb_input_info* info);

/* ---- Graphs that are used more than once ---- */
/* Arrays are copied. Both sizes are the number of nodes, unless sources and targets are of two
 * kinds. Of an edge index: int64 or int32 [2, edges], row 0 the sources, row 1 the targets. */
NB_API nb_status nb_graph_coo(const nb_array* edge_index, int64_t num_sources, int64_t num_targets,
                              nb_graph** graph);
/* Of the sources of every target: indptr int64 or int32 [targets + 1], indices int64 or int32. */
NB_API nb_status nb_graph_csr(const nb_array* indptr, const nb_array* indices, int64_t num_sources,
                              nb_graph** graph);
NB_API void nb_graph_free(nb_graph* graph);

/* ---- Features that were packed ahead ---- */
/* Maps a file that save_input, pack_features or `nodebits pack` has written; flags as for nb_load.
 * Rows of pack_features fit every model that reads such: a scale per row, the same width. */
NB_API nb_status nb_features_load(const char* path, unsigned flags, nb_features** features);
NB_API void nb_features_free(nb_features* features);

/* ---- Runs ---- */
NB_API nb_status nb_run_new(const nb_model* model, nb_run** run);
NB_API void nb_run_free(nb_run* run);
/* 1 is what a new run has. */
NB_API nb_status nb_set_threads(nb_run* run, int threads);
/* The data is not copied: it must stay until nb_execute has returned. int32 does for int64. */
NB_API nb_status nb_set_input(nb_run* run, const char* name, const nb_array* array);
/* The model's first input, as nb_set_input takes it. */
NB_API nb_status nb_set_features(nb_run* run, const nb_array* array);
/* In place of float features, for a model whose plan was made of packed ones. `name` of the
 * argument, such as "x", or NULL where there is one. Nothing is copied; the features may be freed
 * at once. Refuses those of another model. */
NB_API nb_status nb_set_packed_features(nb_run* run, const char* name, const nb_features* features);
/* `name` of an edge index, or NULL where the model has one. The graph may be freed at once. Inputs
 * by type are named for argument and type: "x_dict[paper]", "edge_index_dict[paper,cites,paper]",
 * "data[paper].x"; in a type "/" is written %2F and "%" is written %25. */
NB_API nb_status nb_set_graph(nb_run* run, const char* name, const nb_graph* graph);
/* Inputs stay set. Every output lives until the next nb_execute or nb_run_free. */
NB_API nb_status nb_execute(nb_run* run);
NB_API nb_status nb_output(const nb_run* run, int index, nb_array* array);
/* All of this in one call: the inputs in the order of nb_input, then every output. An input of
 * which ndim is -1 stays as it was set, such as by nb_set_graph. */
NB_API nb_status nb_predict(nb_run* run, const nb_array* inputs, int num_inputs, nb_array* outputs,
                            int num_outputs);
/* Ends the nb_execute that is under way, or else the next one, with NB_ERROR_INTERRUPTED. From any
 * thread or a signal handler. */
NB_API void nb_interrupt(nb_run* run);

#ifdef __cplusplus
}
#endif
#endif
