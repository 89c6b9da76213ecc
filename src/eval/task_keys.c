/* SPDX-License-Identifier: Apache-2.0 */
/* One object of a task file: its keys and what they may be. */
#include <string.h>

#include "base/status.h"
#include "eval/tasks.h"

#define MAX_STOPS 256
#define MAX_STOP_BYTES 4096
#define MAX_FILES 1024

typedef struct keys {
    const emo__task_source *source;
    const emo__mem *mem;
    const emo__json *object;
    const char *where;
    emo__task_spec *spec;
} keys;

static const char *const metric_names[EMO__METRIC_COUNT] = {"accuracy",
                                                            "accuracy_token",
                                                            "accuracy_byte",
                                                            "accuracy_character",
                                                            "accuracy_unconditional",
                                                            "exact_match",
                                                            "f1",
                                                            "prefix_match",
                                                            "bits_per_byte",
                                                            "loss",
                                                            "perplexity"};
const char *emo__metric_name(emo__metric metric) { return metric_names[metric]; }

/* ---- words ---- */

static int find_word(const char *word, const char *const *words, int n) {
    for (int i = 0; i < n; i++) {
        if (strcmp(word, words[i]) == 0)
            return i;
    }
    return -1;
}

/* One of the words, by its place. */
static emo_status take_word(const char *word, const char *const *words, int n, const char *key, const char *where,
                            int *out, emo_error *err) {
    char list[256] = "";
    size_t at = 0;
    *out = find_word(word, words, n);
    if (*out >= 0)
        return EMO_OK;
    for (int i = 0; i < n; i++) {
        size_t length = strlen(words[i]);
        if (at + length + 3 >= sizeof list)
            break;
        memcpy(list + at, i > 0 ? ", " : "", i > 0 ? 3 : 1);
        at += i > 0 ? 2 : 0;
        memcpy(list + at, words[i], length + 1);
        at += length;
    }
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" is \"%.60s\"; it may be %s", where, key,
                        word, list);
}

static emo_status opt_word(const keys *k, const emo__json *object, const char *key, const char *const *words, int n,
                           int *out, emo_error *err) {
    const char *word = NULL;
    emo_status status = emo__json_opt_string(object, key, k->where, words[0], &word, err);
    return status == EMO_OK ? take_word(word, words, n, key, k->where, out, err) : status;
}

/* ---- texts ---- */

static emo_status copy(const keys *k, const char *text, char **out, emo_error *err) {
    *out = emo__strdup(k->mem, text);
    return *out != NULL ? EMO_OK : emo__fail_memory(err, strlen(text) + 1);
}

/* The fallback may be NULL: then *out is. */
static emo_status opt_text(const keys *k, const char *key, const char *fallback, char **out, emo_error *err) {
    const char *text = NULL;
    emo_status status = emo__json_opt_string(k->object, key, k->where, fallback, &text, err);
    return status == EMO_OK && text != NULL ? copy(k, text, out, err) : status;
}

/* NULL as fallback: the key is needed. */
static emo_status template_of(const keys *k, const char *key, const char *fallback, int names, emo__template *out,
                              emo_error *err) {
    const char *text = NULL;
    emo_status status = fallback != NULL ? emo__json_opt_string(k->object, key, k->where, fallback, &text, err)
                                         : emo__json_need_string(k->object, key, k->where, &text, err);
    if (status != EMO_OK)
        return status;
    status = emo__template_parse(k->mem, text, names, key, out, err);
    return status == EMO_OK ? EMO_OK : emo__fail_prefix(err, status, "%s", k->where);
}

/* A string, or a list of 1 to `most` of them. *out is the caller's to free, also on failure. */
static emo_status string_list(const keys *k, const emo__json *node, const char *key, size_t most, char ***out,
                              size_t *count, emo_error *err) {
    bool list = emo__json_typeof(node) == EMO__JSON_ARRAY;
    size_t n = list ? emo__json_size(node) : 1;
    emo_status status = EMO_OK;
    if (n == 0 || n > most)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" has %zu entries; 1 to %zu are possible",
                            k->where, key, n, most);
    *out = emo__calloc(k->mem, n, sizeof **out);
    if (*out == NULL)
        return emo__fail_memory(err, n * sizeof **out);
    for (size_t i = 0; status == EMO_OK && i < n; i++, ++*count) {
        size_t length = 0;
        const char *text = emo__json_string(list ? emo__json_at(node, i) : node, &length);
        if (text == NULL || length == 0 || strlen(text) != length)
            status =
                emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                             "%s: \"%s\" must be a string that is not empty, or a list of such strings", k->where, key);
        else
            status = copy(k, text, &(*out)[i], err);
    }
    return status;
}

static emo_status files_of(const keys *k, const emo__json *object, const char *key, emo__task_split *split,
                           emo_error *err) {
    const emo__json *node = emo__json_get(object, key);
    return node == NULL ? EMO_OK : string_list(k, node, key, MAX_FILES, &split->files, &split->n_files, err);
}

/* ---- which keys there are ---- */

static const char *const common_keys[] = {"name",   "type",        "data",         "validation", "limit",  "by",
                                          "prompt", "description", "continuation", "encode",     "comment"};
static const char *const choice_keys[] = {"choices",   "labels",      "answer",
                                          "answer_is", "choice_line", "normalisation",
                                          "examples",  "separator",   "unconditional_prompt"};
static const char *const generation_keys[] = {"answer",  "stop",  "max_tokens", "metrics",  "normalise",
                                              "extract", "after", "examples",   "separator"};
static const char *const perplexity_keys[] = {"metrics"};
#define COUNT(list) ((int)(sizeof(list) / sizeof(list)[0]))

static emo_status check_keys(const keys *k, const char *const *own, int n_own, const char *type, emo_error *err) {
    emo__json_iter it = emo__json_members(k->object);
    while (emo__json_next(&it)) {
        if (find_word(it.key, common_keys, COUNT(common_keys)) >= 0 || find_word(it.key, own, n_own) >= 0)
            continue;
        char list[320] = "";
        size_t at = 0;
        for (int i = 0; i < COUNT(common_keys) + n_own; i++) {
            const char *word = i < COUNT(common_keys) ? common_keys[i] : own[i - COUNT(common_keys)];
            size_t length = strlen(word);
            if (at + length + 2 >= sizeof list)
                break;
            if (at > 0)
                list[at++] = ' ';
            memcpy(list + at, word, length + 1);
            at += length;
        }
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%.80s: unknown key \"%.40s\"; a task of type %s may have: %s", k->where, it.key, type,
                            list);
    }
    return EMO_OK;
}

/* ---- examples ---- */

static emo_status inline_examples(const keys *k, const emo__json *list, emo_error *err) {
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < emo__json_size(list); i++) {
        emo__buf where;
        emo__buf_init(&where, k->mem);
        status = emo__buf_printf(&where, err, "%s: examples.items[%zu]", k->where, i);
        if (status == EMO_OK)
            status =
                emo__task_split_add(k->mem, k->spec, emo__json_at(list, i), "", 0, where.data, &k->spec->shots, err);
        emo__buf_free(&where);
    }
    return status;
}

static emo_status examples(const keys *k, emo_error *err) {
    static const char *const names[] = {"count", "data", "items", "draw", "seed"};
    static const char *const draws[] = {"first", "task", "item"};
    emo__task_spec *spec = k->spec;
    const emo__json *object = emo__json_get(k->object, "examples");
    emo_status status;
    int64_t seed = 0;
    int draw = 0;
    if (object == NULL)
        return EMO_OK;
    if (emo__json_typeof(object) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: \"examples\" must be an object with \"count\", and \"data\" or \"items\"", k->where);
    for (emo__json_iter it = emo__json_members(object); emo__json_next(&it);) {
        if (find_word(it.key, names, COUNT(names)) < 0)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                                "%s: unknown key \"%.60s\" in \"examples\"; there are count, data, items, draw, seed",
                                k->where, it.key);
    }
    const emo__json *list = emo__json_get(object, "items");
    if ((list != NULL) == emo__json_has(object, "data") || (list != NULL && emo__json_typeof(list) != EMO__JSON_ARRAY))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: \"examples\" needs either \"data\", a file of them, or \"items\", a list of objects",
                            k->where);
    EMO_TRY(status = emo__json_need_i32(object, "count", k->where, 0, EMO__TASK_SHOTS_MAX, &spec->n_shots, err));
    EMO_TRY(status = opt_word(k, object, "draw", draws, COUNT(draws), &draw, err));
    EMO_TRY(status = emo__json_opt_i64(object, "seed", k->where, 0, 0, INT64_MAX, &seed, err));
    spec->draw = (emo__draw)draw;
    spec->seed = (uint64_t)seed;
    EMO_TRY(status = files_of(k, object, "data", &spec->shots, err));
    status = list != NULL ? inline_examples(k, list, err) : emo__task_split_read(k->source, spec, 0, &spec->shots, err);
done:
    return status;
}

/* ---- types ---- */

static emo_status normalisations(const keys *k, emo_error *err) {
    static const char *const words[] = {"none", "token", "byte", "character", "unconditional"};
    const emo__json *node = emo__json_get(k->object, "normalisation");
    emo__task_spec *spec = k->spec;
    char **list = NULL;
    size_t n = 0;
    emo_status status = EMO_OK;
    if (node != NULL)
        status = string_list(k, node, "normalisation", COUNT(words), &list, &n, err);
    for (size_t i = 0; status == EMO_OK && i < n; i++) {
        int which = 0;
        status = take_word(list[i], words, COUNT(words), "normalisation", k->where, &which, err);
        spec->metrics[spec->n_metrics++] = (emo__metric)(EMO__METRIC_ACCURACY + which);
    }
    for (size_t i = 0; list != NULL && i < n; i++)
        emo__free(k->mem, list[i]);
    emo__free(k->mem, list);
    if (node == NULL) {
        spec->metrics[0] = EMO__METRIC_ACCURACY;
        spec->metrics[1] = EMO__METRIC_ACCURACY_BYTE;
        spec->n_metrics = 2;
    }
    return status;
}

static bool wants(const emo__task_spec *spec, emo__metric metric) {
    for (int32_t i = 0; i < spec->n_metrics; i++) {
        if (spec->metrics[i] == metric)
            return true;
    }
    return false;
}

/* "choices": a field with a list in it, or a list of templates. */
static emo_status choices(const keys *k, emo_error *err) {
    emo__task_spec *spec = k->spec;
    const emo__json *node = emo__json_get(k->object, "choices");
    size_t n = emo__json_size(node);
    emo_status status = EMO_OK;
    if (emo__json_typeof(node) != EMO__JSON_ARRAY)
        return opt_text(k, "choices", "choices", &spec->choices_field, err);
    if (n < 2 || n > EMO__TASK_CHOICES_MAX)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: \"choices\" has %zu entries; 2 to %d are possible", k->where, n,
                            EMO__TASK_CHOICES_MAX);
    spec->options = emo__calloc(k->mem, n, sizeof *spec->options);
    if (spec->options == NULL)
        return emo__fail_memory(err, n * sizeof *spec->options);
    for (size_t i = 0; status == EMO_OK && i < n; i++, spec->n_options++) {
        size_t length = 0;
        const char *text = emo__json_string(emo__json_at(node, i), &length);
        if (text == NULL || strlen(text) != length)
            status =
                emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"choices\"[%zu] must be a text", k->where, i);
        else
            status = emo__template_parse(k->mem, text, EMO__NAMES_NONE, k->where, &spec->options[i], err);
    }
    return status;
}

static emo_status choice_task(const keys *k, emo_error *err) {
    static const char *const forms[] = {"index", "number", "letter", "label", "text"};
    emo__task_spec *spec = k->spec;
    int both = EMO__NAMES_CHOICE | EMO__NAMES_CHOICES;
    int form = 0;
    emo_status status;
    EMO_TRY(status = check_keys(k, choice_keys, COUNT(choice_keys), "multiple_choice", err));
    EMO_TRY(status = choices(k, err));
    EMO_TRY(status = opt_text(k, "labels", NULL, &spec->labels_field, err));
    EMO_TRY(status = opt_text(k, "answer", "answer", &spec->answer_field, err));
    EMO_TRY(status = opt_word(k, k->object, "answer_is", forms, COUNT(forms), &form, err));
    spec->answer_is = (emo__answer_is)form;
    if ((spec->answer_is == EMO__ANSWER_LABEL) != (spec->labels_field != NULL))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: \"answer_is\": \"label\" and \"labels\", the field that lists them, need each other",
                            k->where);
    EMO_TRY(status = template_of(k, "prompt", NULL, both, &spec->prompt, err));
    EMO_TRY(status = template_of(k, "continuation", " {choice}", both, &spec->continuation, err));
    EMO_TRY(status = template_of(k, "choice_line", "{letter}. {choice}\n", EMO__NAMES_CHOICE, &spec->row, err));
    spec->prompt_each =
        emo__template_uses(&spec->prompt, EMO__PIECE_CHOICE) || emo__template_uses(&spec->prompt, EMO__PIECE_LETTER);
    EMO_TRY(status = normalisations(k, err));
    status = opt_text(k, "unconditional_prompt", wants(spec, EMO__METRIC_ACCURACY_UNCONDITIONAL) ? "Answer:" : NULL,
                      &spec->unconditional, err);
done:
    return status;
}

/* "metrics": some of a type's own. */
static emo_status metrics(const keys *k, emo__metric first, emo__metric last, int by_default, emo_error *err) {
    const emo__json *node = emo__json_get(k->object, "metrics");
    emo__task_spec *spec = k->spec;
    char **list = NULL;
    size_t n = 0;
    int own = (int)(last - first) + 1;
    emo_status status = EMO_OK;
    for (int i = 0; node == NULL && i < by_default; i++)
        spec->metrics[spec->n_metrics++] = (emo__metric)((int)first + i);
    if (node != NULL)
        status = string_list(k, node, "metrics", (size_t)own, &list, &n, err);
    for (size_t i = 0; status == EMO_OK && i < n; i++) {
        int which = 0;
        status = take_word(list[i], metric_names + first, own, "metrics", k->where, &which, err);
        spec->metrics[spec->n_metrics++] = (emo__metric)((int)first + which);
    }
    for (size_t i = 0; list != NULL && i < n; i++)
        emo__free(k->mem, list[i]);
    emo__free(k->mem, list);
    return status;
}

static emo_status answer_rule(const keys *k, emo_error *err) {
    static const char *const extracts[] = {"none", "first_line", "last_number"};
    static const char *const steps[] = {"case", "punctuation", "articles", "space"};
    emo__answer_rule *rule = &k->spec->rule;
    const emo__json *node = emo__json_get(k->object, "normalise");
    int extract = 0;
    emo_status status;
    EMO_TRY(status = opt_text(k, "after", NULL, &rule->after, err));
    if (rule->after != NULL && rule->after[0] == '\0')
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: \"after\" is empty; leave it out to take all of a text", k->where);
    EMO_TRY(status = opt_word(k, k->object, "extract", extracts, COUNT(extracts), &extract, err));
    rule->extract = (emo__extract)extract;
    bool *const flags[] = {&rule->lower, &rule->punctuation, &rule->articles, &rule->space};
    for (int i = 0; node == NULL && i < COUNT(steps); i++)
        *flags[i] = true;
    if (node != NULL && emo__json_typeof(node) != EMO__JSON_ARRAY)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: \"normalise\" must be a list of case, punctuation, articles, space; [] for none",
                            k->where);
    for (size_t i = 0; i < emo__json_size(node); i++) {
        int which = 0;
        const char *word = emo__json_string(emo__json_at(node, i), NULL);
        EMO_TRY(status = take_word(word != NULL ? word : "", steps, COUNT(steps), "normalise", k->where, &which, err));
        *flags[which] = true;
    }
done:
    return status;
}

static emo_status generation_task(const keys *k, emo_error *err) {
    emo__task_spec *spec = k->spec;
    const emo__json *stop = emo__json_get(k->object, "stop");
    emo_status status;
    EMO_TRY(status = check_keys(k, generation_keys, COUNT(generation_keys), "generation", err));
    EMO_TRY(status = opt_text(k, "answer", "answer", &spec->answer_field, err));
    EMO_TRY(status = template_of(k, "prompt", NULL, EMO__NAMES_NONE, &spec->prompt, err));
    EMO_TRY(status = template_of(k, "continuation", " {answer}", EMO__NAMES_ANSWER, &spec->continuation, err));
    EMO_TRY(status = emo__json_opt_i32(k->object, "max_tokens", k->where, 64, 1, 1 << 20, &spec->max_tokens, err));
    if (stop != NULL && emo__json_typeof(stop) == EMO__JSON_ARRAY && emo__json_size(stop) == 0)
        stop = NULL; /* eos and max_tokens alone end a text */
    if (stop != NULL)
        EMO_TRY(status = string_list(k, stop, "stop", MAX_STOPS, &spec->stop, &spec->n_stop, err));
    for (size_t i = 0; i < spec->n_stop; i++) {
        if (strlen(spec->stop[i]) > MAX_STOP_BYTES)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"stop\"[%zu] has more than %d bytes",
                                k->where, i, MAX_STOP_BYTES);
    }
    EMO_TRY(status = metrics(k, EMO__METRIC_EXACT, EMO__METRIC_PREFIX, 2, err));
    status = answer_rule(k, err);
done:
    return status;
}

static emo_status perplexity_task(const keys *k, emo_error *err) {
    emo__task_spec *spec = k->spec;
    emo_status status;
    EMO_TRY(status = check_keys(k, perplexity_keys, COUNT(perplexity_keys), "perplexity", err));
    EMO_TRY(status = template_of(k, "prompt", "", EMO__NAMES_NONE, &spec->prompt, err));
    EMO_TRY(status = template_of(k, "continuation", "{text}", EMO__NAMES_NONE, &spec->continuation, err));
    status = metrics(k, EMO__METRIC_BITS, EMO__METRIC_PERPLEXITY, 3, err);
done:
    return status;
}

/* ---- all of it ---- */

static emo_status data_files(const keys *k, emo_error *err) {
    emo__task_spec *spec = k->spec;
    emo_status status;
    EMO_TRY(status = files_of(k, k->object, "data", &spec->data, err));
    if (spec->data.n_files == 0)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: \"data\" is missing; it names the .jsonl or .jsonl.gz file of the items", k->where);
    EMO_TRY(status = files_of(k, k->object, "validation", &spec->validation, err));
    EMO_TRY(status = examples(k, err));
    EMO_TRY(status = emo__task_split_read(k->source, spec, spec->by == NULL ? spec->limit : 0, &spec->data, err));
    status = emo__task_split_read(k->source, spec, 0, &spec->validation, err);
done:
    return status;
}

emo_status emo__task_spec_read(const emo__task_source *source, const emo__json *object, const char *where,
                               emo__task_spec *spec, emo_error *err) {
    static const char *const types[] = {"multiple_choice", "generation", "perplexity"};
    static const char *const encodes[] = {"whole", "apart"};
    keys k = {source, source->mem, object, where, spec};
    const char *text = NULL;
    int which = 0;
    emo_status status;
    if (emo__json_typeof(object) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: a task must be an object", where);
    EMO_TRY(status = emo__json_need_string(object, "name", where, &text, err));
    if (text[0] == '\0' || strlen(text) > 200)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"name\" must have 1 to 200 bytes", where);
    EMO_TRY(status = copy(&k, text, &spec->name, err));
    EMO_TRY(status = copy(&k, where, &spec->where, err));
    EMO_TRY(status = emo__json_need_string(object, "type", where, &text, err));
    EMO_TRY(status = take_word(text, types, COUNT(types), "type", where, &which, err));
    spec->type = (emo_task_type)which;
    EMO_TRY(status = emo__json_opt_i64(object, "limit", where, 0, 1, EMO__TASK_ITEMS_MAX, &spec->limit, err));
    if (source->limit > 0 && (spec->limit == 0 || source->limit < spec->limit))
        spec->limit = source->limit;
    EMO_TRY(status = opt_text(&k, "by", NULL, &spec->by, err));
    EMO_TRY(status = opt_word(&k, object, "encode", encodes, COUNT(encodes), &which, err));
    spec->apart = which == 1;
    EMO_TRY(status = opt_text(&k, "separator", "\n\n", &spec->separator, err));
    EMO_TRY(status = template_of(&k, "description", "", EMO__NAMES_NONE, &spec->description, err));
    if (spec->type == EMO_TASK_CHOICE)
        status = choice_task(&k, err);
    else
        status = spec->type == EMO_TASK_GENERATION ? generation_task(&k, err) : perplexity_task(&k, err);
    if (status == EMO_OK)
        status = data_files(&k, err);
done:
    return status;
}

void emo__task_spec_free(const emo__mem *mem, emo__task_spec *spec) {
    char *texts[] = {spec->name,         spec->where,         spec->by,        spec->choices_field, spec->labels_field,
                     spec->answer_field, spec->unconditional, spec->separator, spec->rule.after};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        emo__free(mem, texts[i]);
    for (size_t i = 0; i < spec->n_stop; i++)
        emo__free(mem, spec->stop[i]);
    emo__free(mem, spec->stop);
    emo__template_free(&spec->description);
    emo__template_free(&spec->prompt);
    emo__template_free(&spec->continuation);
    emo__template_free(&spec->row);
    for (size_t i = 0; i < spec->n_options; i++)
        emo__template_free(&spec->options[i]);
    emo__free(mem, spec->options);
    emo__task_split_free(mem, &spec->data);
    emo__task_split_free(mem, &spec->shots);
    emo__task_split_free(mem, &spec->validation);
    memset(spec, 0, sizeof *spec);
}
