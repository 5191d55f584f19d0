/**
 * JSON schemas that carry their TypeScript type, so that a route is described once: the server compiles the schema, the
 * client gets the type. Only the keywords that the admin interface uses.
 */
export type JsonSchema = { readonly [keyword: string]: unknown };

export interface Schema<T> {
  readonly json: JsonSchema;
  /** Never set: it only carries the type. */
  readonly type?: T;
}

/** The TypeScript type that a schema describes. */
export type TypeOf<S> = S extends Schema<infer T> ? T : never;

interface OptionalSchema<T> extends Schema<T> {
  readonly optional: true;
}

type Properties = Readonly<Record<string, Schema<unknown>>>;
type OptionalKeys<P extends Properties> = {
  [K in keyof P]: P[K] extends { readonly optional: true } ? K : never;
}[keyof P];
type ObjectOf<P extends Properties> = {
  readonly [K in Exclude<keyof P, OptionalKeys<P>>]: TypeOf<P[K]>;
} & { readonly [K in OptionalKeys<P>]?: TypeOf<P[K]> };

const schema = <T>(json: JsonSchema): Schema<T> => ({ json });

export const string = (description: string, limits: { pattern?: string; maxLength?: number } = {}) =>
  schema<string>({ type: 'string', description, ...limits });

export const oneOf = <const V extends readonly string[]>(description: string, values: V): Schema<V[number]> =>
  schema<V[number]>({ type: 'string', enum: values, description });

export const integer = (description: string, limits: { minimum?: number; maximum?: number; default?: number } = {}) =>
  schema<number>({ type: 'integer', description, ...limits });

export const number = (description: string) => schema<number>({ type: 'number', description });

export const boolean = (description: string) => schema<boolean>({ type: 'boolean', description });

export const array = <T>(item: Schema<T>, description: string): Schema<readonly T[]> =>
  schema<readonly T[]>({ type: 'array', items: item.json, description });

/** Names that aren't known beforehand, each with a value of one kind. */
export const record = <T>(value: Schema<T>, description: string): Schema<Readonly<Record<string, T>>> =>
  schema<Readonly<Record<string, T>>>({ type: 'object', additionalProperties: value.json, description });

export const optional = <T>(inner: Schema<T>): OptionalSchema<T> => ({ json: inner.json, optional: true });

/** All properties are required unless `optional`; others are refused. */
export function object<const P extends Properties>(properties: P, description = ''): Schema<ObjectOf<P>> {
  const required = Object.keys(properties).filter((key) => !('optional' in (properties[key] ?? {})));
  const json = Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, value.json]));
  return schema<ObjectOf<P>>({
    type: 'object',
    additionalProperties: false,
    properties: json,
    ...(required.length > 0 ? { required } : {}),
    ...(description === '' ? {} : { description }),
  });
}
