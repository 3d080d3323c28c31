import { sqliteTable, text } from "drizzle-orm/sqlite-core";

export const ItemTable = sqliteTable("item", {
  id: text("id").primaryKey(),
  session_id: text("session_id").notNull(),
  type: text("type", { enum: ["session", "message", "part", "diff"] }).notNull(),
  data: text("data", { mode: "json" }).$type<Record<string, unknown>>().notNull(),
});
